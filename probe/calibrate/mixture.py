"""Temperature, tau, k, lambda and space of the hybrid, fitted on rows that trained neither part.

The least mean negative log-likelihood over a grid, temperature scaling first (Guo et al. 2017,
arXiv 1706.04599). The defaults stay unless the data tell clearly: by more than two standard errors
of the paired difference, on enough rows, and with no more errors than the probe makes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray
from kinshelf.probe.calibrate.hybrid import mix
from kinshelf.probe.fit.knn import NO_VOTE, knn_distribution
from kinshelf.probe.fit.model import softmax
from kinshelf.probe.fit.settings import SPACES, Calibration
from kinshelf.probe.fit.split import cross_fit_rounds

if TYPE_CHECKING:
    from kinshelf.probe.calibrate.crossfit import CrossFit

NEIGHBOURS = (5, 10, 20)
TAUS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
_TEMPERATURES = np.exp(np.linspace(np.log(0.25), np.log(8), 121))
ENOUGH = 200
"""Judged rows from which anything but the temperature is fitted. With 8 to 32 products a category
a choice over the whole grid made the hybrid 0.6 to 1.5 points worse than the probe."""

_PRIOR_ROWS = 10.0
"""How many rows' worth of belief there is that the temperature is 1."""
_LEAST = 1e-12


def fit_calibration(found: CrossFit) -> Calibration:
    """The calibration of least loss on the judged rows."""
    temperature = _temperature(found)
    truth = np.arange(len(found))
    predicted = softmax(found.logits / temperature)[truth, found.codes]
    usual = replace(Calibration(), temperature=temperature)
    usual_loss = _losses(predicted, _true_votes(found, usual), usual.lam)
    best, best_loss = usual, usual_loss
    for space in SPACES:
        for k in NEIGHBOURS:
            for tau in TAUS:
                tried = Calibration(temperature, tau, k, usual.lam, space)
                votes = _true_votes(found, tried)
                for lam in SHARES:
                    losses = _losses(predicted, votes, lam)
                    if losses.mean() < best_loss.mean():
                        best, best_loss = replace(tried, lam=lam), losses
    gain = usual_loss - best_loss
    clear = len(gain) >= ENOUGH and gain.mean() > 2 * gain.std() / np.sqrt(len(gain))
    return best if clear and _errors(found, best) <= _errors(found, replace(best, lam=0)) else usual


def _errors(found: CrossFit, calibration: Calibration) -> int:
    return int((~held_out_answers(found, calibration).right).sum())


def _temperature(found: CrossFit) -> float:
    rows = np.arange(len(found))
    losses = [
        -np.log(np.maximum(softmax(found.logits / t)[rows, found.codes], _LEAST)).sum()
        + 0.5 * _PRIOR_ROWS * np.log(t) ** 2
        for t in _TEMPERATURES
    ]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def _true_votes(found: CrossFit, calibration: Calibration) -> tuple[Float64Array, BoolArray]:
    """The neighbours' share for the true class, (m,), and whether anybody voted."""
    k = calibration.k
    labels = found.labels[:, :k]
    mine = np.where(labels == NO_VOTE, NO_VOTE, (labels == found.codes[:, None]).astype(np.int64))
    similarities = found.similarities[calibration.space][:, :k]
    votes = knn_distribution(similarities, mine, calibration.tau, 2)
    return votes[:, 1], np.asarray(votes.any(axis=1), dtype=np.bool_)


def _losses(
    predicted: Float64Array, votes: tuple[Float64Array, BoolArray], lam: float
) -> Float64Array:
    share, voted = votes
    mixed = np.where(voted, (1 - lam) * predicted + lam * share, predicted)
    return np.asarray(-np.log(np.maximum(mixed, _LEAST)), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """The calibrated hybrid's predictions for the judged rows, each (m,).

    `codes` int64 their classes; `given` float64 the probability of that class; `confidence` float64
    that of the answer; `right` bool; `agree` bool, whether probe and neighbours say the same.
    """

    codes: IntArray
    given: Float64Array
    confidence: Float64Array
    right: BoolArray
    agree: BoolArray

    def __len__(self) -> int:
        return len(self.codes)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, to be stored with a probe."""
        return {f"held_out.{name}": getattr(self, name) for name in _COLUMNS}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self | None:
        """Read from stored `arrays`; None if they hold none."""
        if "held_out.codes" not in arrays:
            return None
        return cls(*(arrays[f"held_out.{name}"] for name in _COLUMNS))


_COLUMNS = ("codes", "given", "confidence", "right", "agree")


def certifying_answers(found: CrossFit, seed: int) -> HeldOut:
    """The judged rows' answers, each with a calibration that was chosen on other rows.

    The calibration that is deployed is chosen on all of them, and flatters itself there.
    """
    parts, places = [], []
    for chosen_on, judged in cross_fit_rounds(found.codes, seed):
        answered = np.zeros(len(found), dtype=np.bool_)
        answered[judged] = True
        calibration = fit_calibration(found.take(chosen_on))
        parts.append(held_out_answers(found.take(answered), calibration))
        places.append(judged)
    order = np.argsort(np.concatenate(places))
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS)
    return HeldOut(*(column[order] for column in columns))


def held_out_answers(found: CrossFit, calibration: Calibration) -> HeldOut:
    """The answers of the hybrid with a calibration, as `classify` would have given them."""
    p_probe = softmax(found.logits / calibration.temperature)
    labels = found.labels[:, : calibration.k]
    similarities: FloatArray = found.similarities[calibration.space][:, : calibration.k]
    p_knn = knn_distribution(similarities, labels, calibration.tau, p_probe.shape[1])
    seen = np.ones(p_probe.shape[1], dtype=np.bool_)
    proba = mix(p_probe, p_knn, seen, calibration.lam)
    best = proba.argmax(axis=1)
    return HeldOut(
        codes=found.codes,
        given=proba[np.arange(len(found)), found.codes],
        confidence=proba.max(axis=1),
        right=best == found.codes,
        agree=(p_probe.argmax(axis=1) == p_knn.argmax(axis=1)) & p_knn.any(axis=1),
    )
