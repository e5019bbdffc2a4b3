"""The hybrid's parameters, fitted on rows that trained none of its parts.

Temperatures of probe and ridge first (Guo et al. 2017, arXiv 1706.04599), then the powers of the
two and the neighbours' share together, each by the mean negative log-likelihood and a prior that
weighs as much as a few rows. Where rows are few the prior stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import BoolArray, Float64Array, IntArray
from kinshelf.probe.calibrate.hybrid import Parameters, mix, parameters_of, pooled
from kinshelf.probe.fit.knn import NO_VOTE, knn_distribution
from kinshelf.probe.fit.model import softmax
from kinshelf.probe.fit.settings import Calibration
from kinshelf.probe.fit.split import cross_fit_rounds
from kinshelf.probe.novelty.model import VIEWS

if TYPE_CHECKING:
    from kinshelf.probe.calibrate.crossfit import CrossFit

PRIOR = Calibration(
    temperature=0.6, sharpness=18.0, probe_power=0.2, ridge_power=0.8, lam=0.05, tau=0.1, k=10,
    space="whitened",
)  # fmt: skip
"""Where nothing can be fitted, and what is fitted is drawn to. With 1 to 8 labels a category the
ridge's loss was least at a sharpness of 20 to 11."""

_PRIOR_ROWS = 10.0
"""How many rows' worth of belief there is in the prior's temperatures, in their logarithms."""
_POOL_ROWS = 10.0
"""How many rows' worth there is in its powers and in the logarithm of the odds of its share."""
_MOST = 3.0
_LEAST = 1e-12


def fit_calibration(found: CrossFit) -> Calibration:
    """The calibration of rows as they are, shrunk towards `PRIOR`."""
    return _fitted(found.take(~found.masked), PRIOR)


def fit_views(found: CrossFit, calibration: Calibration) -> Float64Array:
    """`Parameters` (3, 5) of queries with both modalities, with an image and with a text alone,
    shrunk towards those of all."""
    return np.stack([
        parameters_of(_fitted(found.take(found.views == view), calibration))
        for view in range(len(VIEWS))
    ])  # fmt: skip


def _fitted(found: CrossFit, prior: Calibration) -> Calibration:
    if not len(found):
        return prior
    temperature = 1 / _scale(found.logits, found.codes, 1 / prior.temperature)
    sharpness = _scale(found.scores, found.codes, prior.sharpness)
    return _fit_pool(found, replace(prior, temperature=temperature, sharpness=sharpness))


def _scale(logits: NDArray[np.floating[Any]], codes: IntArray, usual: float) -> float:
    """What logits (m, n_classes) are to be multiplied by."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(codes))

    def loss(log_ratio: float) -> float:
        given = softmax(logits * (usual * np.exp(log_ratio)))[rows, codes]
        own = -np.log(np.maximum(given, _LEAST)).sum()
        return float(own + 0.5 * _PRIOR_ROWS * log_ratio**2)

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-3})
    return float(usual * np.exp(best.x))


def _fit_pool(found: CrossFit, usual: Calibration) -> Calibration:
    """`usual` with the powers and the share that suit the rows, by their exact gradient."""
    from scipy.optimize import minimize

    own = _Pool(found, usual)
    start = np.array([usual.probe_power, usual.ridge_power, _odds(usual.lam)])
    bounds = [(0, _MOST), (0, _MOST), (_odds(0.001), _odds(0.9))]
    low, high = np.array(bounds).T
    start = np.clip(start, low, high)
    best = minimize(own.loss, start, args=(start,), jac=True, method="L-BFGS-B", bounds=bounds).x
    lam = 1 / (1 + np.exp(-best[2]))
    return replace(usual, probe_power=float(best[0]), ridge_power=float(best[1]), lam=float(lam))


def _odds(share: float) -> float:
    share = min(max(share, _LEAST), 1 - _LEAST)
    return float(np.log(share / (1 - share)))


class _Pool:
    """The loss of powers and share on judged rows."""

    def __init__(self, found: CrossFit, usual: Calibration) -> None:
        self._probe = found.logits / usual.temperature
        self._ridge = found.scores * usual.sharpness
        self._codes, self._rows = found.codes, np.arange(len(found))
        self._votes, self._voted = _true_votes(found, usual)

    def loss(self, at: Float64Array, prior: Float64Array) -> tuple[float, Float64Array]:
        """Its sum over the rows and the prior's part, and the gradient (3,)."""
        pool = softmax(at[0] * self._probe + at[1] * self._ridge)
        given = pool[self._rows, self._codes]
        lam = 1 / (1 + np.exp(-at[2])) * self._voted
        mixed = np.maximum((1 - lam) * given + lam * self._votes, _LEAST)
        by_pool = (1 - lam) * given / mixed
        slopes = [
            -(by_pool * (side[self._rows, self._codes] - np.vecdot(pool, side))).sum()
            for side in (self._probe, self._ridge)
        ]
        slopes.append(-((self._votes - given) / mixed * lam * (1 - lam)).sum())
        away = at - prior
        total = -np.log(mixed).sum() + 0.5 * _POOL_ROWS * (away @ away)
        return float(total), np.array(slopes) + _POOL_ROWS * away


def _true_votes(found: CrossFit, calibration: Calibration) -> tuple[Float64Array, BoolArray]:
    """The neighbours' share for the true class, (m,), and whether anybody voted."""
    k = calibration.k
    labels = found.labels[:, :k]
    mine = np.where(labels == NO_VOTE, NO_VOTE, (labels == found.codes[:, None]).astype(np.int64))
    votes = knn_distribution(found.similarities[:, :k], mine, calibration.tau, 2)
    return votes[:, 1], np.asarray(votes.any(axis=1), dtype=np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """The calibrated hybrid's predictions for the judged rows, each (m,).

    `codes` int64 their classes; `given` float64 the probability of that class; `confidence` float64
    that of the answer; `right` bool; `agree` bool, whether probe and neighbours say the same;
    `views` int64 which modalities the query had, places in `VIEWS`; `masked` bool, whether one of
    the row's own was hidden from it. Probes of older versions have neither of these.
    """

    codes: IntArray
    given: Float64Array
    confidence: Float64Array
    right: BoolArray
    agree: BoolArray
    views: IntArray | None = None
    masked: BoolArray | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, to be stored with a probe."""
        columns = {f"held_out.{name}": getattr(self, name) for name in _COLUMNS}
        return {name: column for name, column in columns.items() if column is not None}

    def take(self, chosen: BoolArray) -> Self:
        """The rows where `chosen` (m,) is true."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        return replace(
            self, **{name: own[chosen] for name, own in columns.items() if own is not None}
        )

    def as_they_are(self) -> Self:
        """Those of the rows from which nothing was hidden."""
        return self if self.masked is None else self.take(~self.masked)

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self | None:
        """Read from stored `arrays`, rows from which nothing was hidden; None if they hold none."""
        found = cls.with_masked(arrays)
        return found and found.as_they_are()

    @classmethod
    def with_masked(cls, arrays: Mapping[str, NDArray[Any]]) -> Self | None:
        """As `of`, with the rows that were judged by one modality of two as well."""
        if "held_out.codes" not in arrays:
            return None
        return cls(*(arrays.get(f"held_out.{name}") for name in _COLUMNS))  # type: ignore[arg-type]


_COLUMNS = ("codes", "given", "confidence", "right", "agree", "views", "masked")


def certifying_answers(found: CrossFit, seed: int) -> HeldOut:
    """The judged rows' answers, each with a calibration that was chosen on other rows.

    The calibration that is deployed is chosen on all of them, and flatters itself there.
    """
    parts, places = [], []
    for chosen_on, judged in _rounds(found, seed):
        answered = ~chosen_on
        others = found.take(chosen_on)
        calibration = fit_calibration(others)
        by_view = fit_views(others, calibration)
        parts.append(held_out_answers(found.take(answered), calibration, by_view))
        places.append(judged)
    order = np.argsort(np.concatenate(places))
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS]
    return HeldOut(*(column[order] for column in columns))


def _rounds(found: CrossFit, seed: int) -> Iterator[tuple[BoolArray, IntArray]]:
    """As `cross_fit_rounds`; the views of one row are in the same round."""
    return cross_fit_rounds(found.codes, seed, found.places)


def held_out_answers(
    found: CrossFit, calibration: Calibration, by_view: Float64Array | None = None
) -> HeldOut:
    """The answers of the hybrid with a calibration, as `classify` would have given them."""
    p_probe, p_knn, proba = distributions_of(found, calibration, by_view)
    best = proba.argmax(axis=1)
    return HeldOut(
        codes=found.codes,
        given=proba[np.arange(len(found)), found.codes],
        confidence=proba.max(axis=1),
        right=best == found.codes,
        agree=(p_probe.argmax(axis=1) == p_knn.argmax(axis=1)) & p_knn.any(axis=1),
        views=found.views,
        masked=found.masked,
    )


def distributions_of(
    found: CrossFit, calibration: Calibration, by_view: Float64Array | None = None
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Those of probe, neighbours and hybrid for the judged rows, (m, n_classes) each."""
    own = Parameters.of(calibration, by_view, found.views)
    p_probe = softmax(found.logits / own.temperature)
    labels = found.labels[:, : calibration.k]
    similarities = found.similarities[:, : calibration.k]
    p_knn = knn_distribution(similarities, labels, calibration.tau, p_probe.shape[1])
    seen = np.ones(p_probe.shape[1], dtype=np.bool_)
    return p_probe, p_knn, mix(pooled(found.logits, found.scores, own), p_knn, seen, own.lam)
