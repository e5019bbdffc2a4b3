"""Is a product of a category that the shelf does not have?

Three signs, each standardised on the shelf's own products and summed: how far the nearest products
are, how little better any category explains the embedding than the catalogue as a whole does
(`mahalanobis`), and how much the neighbours disagree. The sum becomes a conformal p-value: how
often one of the shelf's own products, judged as if it were new, looks as novel.

With one of four categories of 828 products left out, 0.96 of the pairs of a product of it and a
known one are distinguished; the nearest distance alone 0.93, each other sign alone 0.90 to 0.95.
Weights that were fitted by leaving out further categories were not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray, ObjectArray
from kinshelf.db.errors import InvalidEmbeddings
from kinshelf.probe.fit.knn import NO_VOTE, knn_distribution
from kinshelf.probe.novelty.mahalanobis import Relative

NEIGHBOURS = 50
"""Nearest categorised products that a score is made from."""

NEAREST = 5
"""Those that tell how far the nearest are."""

TAU = 0.05
"""Of the neighbours' weights when they disagree, as in `Calibration`."""

NOVEL = 0.02
"""A product whose p-value is below this is novel; see `is_novel`."""

FEWEST = 50
"""Products needed; with fewer no p-value is far below 0.05."""

MODALITIES = ("image", "text")
VIEWS = ("both", *MODALITIES)
"""Which modalities a query has: an embedding without a text is judged by those of pictures
alone."""

_LEAST_SPREAD = np.array([0.01, 1.0, 0.05])
"""Of the signs: one that hardly varies on the shelf must not drown the others."""

_ALIKE = 10.0
"""How many products' worth of belief there is in categories that vary alike."""

_LEAST = 1e-12
Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Signs:
    """The statistics behind a score, for each modality that enough products have."""

    classes: tuple[str, ...]
    relative: Mapping[str, Relative]

    def of(
        self, X: FloatArray, near: FloatArray | None, categories: ObjectArray,
        similarity: FloatArray | Float64Array | None = None,
    ) -> tuple[Float64Array, IntArray]:  # fmt: skip
        """The signs of novelty, (n, 3) float64, and the place in `classes` (n,) of the nearest
        category, -1: none. Arguments as in `NoveltyModel.score`,
        or the `similarity` (n, k) of neighbours that are all of known categories in the place of
        `near`.
        """
        labels, names = _labels(categories, self.classes)
        given = present(X)
        if near is not None:
            share = 2 / np.maximum(given.sum(axis=1), 1)
            similarity = np.einsum("nd,nkd->nk", X, near) * share[:, None]
        assert similarity is not None, "one of both tells it"
        found: Float64Array = np.where(labels == NO_VOTE, -np.inf, similarity).astype(np.float64)
        new = self._new(labels)
        disagreement = _disagreement(found, labels, len(names))
        if new.any():
            few = _those_that_matter(found, new)
            led = _disagreement(few, labels, len(names), led_by=new)
            disagreement = np.minimum(disagreement, led)
        unlike = self._unlike(X, near, labels, given)
        signs = np.stack([_distance(found), unlike, disagreement], axis=1)
        return signs, self._nearest(X, given)

    def _new(self, labels: IntArray) -> BoolArray:
        """Which neighbours are of a category that came after the training, (n, k)."""
        seen = np.zeros(max(len(self.classes), int(labels.max(initial=0)) + 1), dtype=np.bool_)
        for relative in self.relative.values():
            seen[: len(self.classes)] |= relative.known
        return np.asarray((labels != NO_VOTE) & ~seen[labels], dtype=np.bool_)

    def _nearest(self, X: FloatArray, given: BoolArray) -> IntArray:
        """The place in `classes` of the category nearest in all modalities, (n,), or -1."""
        total = np.zeros((len(X), len(self.classes)))
        for i, half in enumerate(MODALITIES):
            relative, rows = self.relative.get(half), np.flatnonzero(given[:, i])
            if relative is not None and len(rows):
                middle = X.shape[1] // 2
                side = X[rows, i * middle : (i + 1) * middle]
                total[np.ix_(rows, np.flatnonzero(relative.known))] += relative.to_each(side)
                total[np.ix_(rows, np.flatnonzero(~relative.known))] = np.inf
        return np.where(total.any(axis=1), total.argmin(axis=1), -1)

    def _unlike(
        self, X: FloatArray, near: FloatArray | None, labels: IntArray, given: BoolArray
    ) -> Float64Array:
        """Relative distance to the nearest category, summed over the modalities that are there."""
        total = np.zeros(len(X))
        for i, half in enumerate(MODALITIES):
            relative, rows = self.relative.get(half), np.flatnonzero(given[:, i])
            if relative is None or not len(rows):
                continue
            middle = X.shape[1] // 2
            side = slice(i * middle, (i + 1) * middle)
            found = relative.distance(X[rows, side])
            if near is not None:
                _nearer_if_new(relative, found, X[rows, side], near[rows, :, side], labels[rows])
            total[rows] += found
        return total


def _nearer_if_new(
    relative: Relative, found: Float64Array, X: FloatArray, near: FloatArray, labels: IntArray
) -> None:
    """Lowers `found` where a category without statistics, seen among the neighbours, is nearer.

    So a category that came after the training is not novel once some ten products of it are there:
    its mean is that of the neighbours. One or two still look much like anything else unknown.
    """
    known = np.append(relative.known, np.zeros(max(labels.max(initial=0) + 1, 1), dtype=np.bool_))
    new = (labels != NO_VOTE) & ~known[labels] & near.any(axis=2)
    for row in np.flatnonzero(new.any(axis=1)):
        for label in np.unique(labels[row, new[row]]):
            centre = near[row, new[row] & (labels[row] == label)].mean(axis=0)
            apart = relative.distance_to(X[row : row + 1], centre[None])
            found[row] = min(found[row], float(apart[0]))


@dataclass(frozen=True, slots=True, eq=False)
class Usual:
    """The shelf's own products in one view: `centre` and `spread` of the signs, (3,), the scores
    (m,), ascending, and what is usual among those that a category's neighbours vote for: `offsets`
    and `scales` (n_classes,). All float32."""

    centre: FloatArray
    spread: FloatArray
    scores: FloatArray
    offsets: FloatArray
    scales: FloatArray

    def standardised(self, signs: Float64Array, voted: IntArray) -> FloatArray:
        """The mean of the standardised signs (n, 3), standardised once more within the category
        `voted` (n,) for: (n,) float32."""
        mean = ((signs - self.centre) / self.spread).mean(axis=1)
        known = voted >= 0
        mean[known] -= self.offsets[voted[known]]
        mean[known] /= self.scales[voted[known]]
        return np.asarray(mean, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class NoveltyModel:
    """Scores and p-values of novelty, in NumPy alone, from a query and its neighbours."""

    signs: Signs
    usual: Mapping[str, Usual]

    def score(self, X: FloatArray, near: FloatArray, categories: ObjectArray) -> FloatArray:
        """Novelty scores of fused embeddings (n, D) float32, (n,) float32; higher is more novel.

        `near` (n, k, D) float32 are the fused embeddings of the `NEIGHBOURS` nearest categorised
        products, `categories` (n, k) theirs, None where there is no such neighbour. Copies of the
        query count: a product that is known is not novel. NaN where the shelf has too few products
        with the query's modalities to tell. Raises InvalidEmbeddings.
        """
        if near.shape != (*categories.shape, X.shape[1]) or len(near) != len(X):
            raise InvalidEmbeddings(
                f"queries of shape {X.shape} need neighbours of shape (n, k, D) and their "
                f"categories (n, k), not {near.shape} and {categories.shape}"
            )
        return self._scored(X, *self.signs.of(X, near, categories))

    def score_known(
        self, X: FloatArray, similarities: FloatArray, categories: ObjectArray
    ) -> FloatArray:
        """As `score`, by the `similarities` (n, k) of the neighbours, which are all of categories
        that the model knows and have the modalities of the query."""
        return self._scored(X, *self.signs.of(X, None, categories, similarities))

    def _scored(self, X: FloatArray, signs: Float64Array, voted: IntArray) -> FloatArray:
        found = np.full(len(X), np.nan, dtype=np.float32)
        for _view, usual, rows in self._views(X):
            found[rows] = usual.standardised(signs[rows], voted[rows])
        return found

    def p_value(self, scores: FloatArray, X: FloatArray) -> Float64Array:
        """Share of the shelf's own products, the query counted, that look as novel: (n,) float64.

        `scores` (n,) are those of `X` (n, D), which shows the modalities. Of a product like those
        of the shelf it is uniform or above. NaN where the score is.
        """
        found = np.full(len(X), np.nan)
        for _view, usual, rows in self._views(X):
            found[rows] = p_values(scores[rows], usual.scores)
        return found

    def _views(self, X: FloatArray) -> list[tuple[str, Usual, IntArray]]:
        views = view_of(X)
        return [(v, usual, np.flatnonzero(views == v)) for v, usual in self.usual.items()]

    def arrays(self) -> dict[str, Array]:
        """All that `from_arrays` needs but the classes; float32, and int64 for counts."""
        found: dict[str, Array] = {}
        for half, relative in self.signs.relative.items():
            found |= {f"{half}.{name}": array for name, array in relative.arrays().items()}
        for view, usual in self.usual.items():
            found |= {f"usual.{view}.{name}": getattr(usual, name) for name in _USUAL}
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], classes: tuple[str, ...]) -> Self:
        """The model whose `arrays` these are; `classes` are the probe's. Raises KeyError."""
        relative = {
            half: Relative.from_arrays(_under(f"{half}.", arrays))
            for half in MODALITIES
            if f"{half}.mean" in arrays
        }
        usual = {
            view: _usual(_under(f"usual.{view}.", arrays), len(classes))
            for view in VIEWS
            if f"usual.{view}.scores" in arrays
        }
        return cls(Signs(classes, relative), usual)


_USUAL = ("centre", "spread", "scores", "offsets", "scales")


def _usual(arrays: Mapping[str, Array], n_classes: int) -> Usual:
    """Probes of older versions judge all categories alike."""
    alike = {"offsets": np.zeros(n_classes, np.float32), "scales": np.ones(n_classes, np.float32)}
    return Usual(**{**alike, **arrays})


def usual_of(signs: Float64Array, voted: IntArray, n_classes: int) -> Usual:
    """From the signs (m, 3) of the shelf's own products, each judged as if it were new, and the
    categories that their neighbours voted for (m,)."""
    spread = np.maximum(signs.std(axis=0), _LEAST_SPREAD).astype(np.float32)
    centre = signs.mean(axis=0).astype(np.float32)
    nothing, flat = np.zeros(0, np.float32), np.zeros(n_classes, np.float32)
    bare = Usual(centre, spread, nothing, flat, flat + 1)
    offsets, scales = _by_category(bare.standardised(signs, voted), voted, n_classes)
    own = Usual(centre, spread, nothing, offsets, scales)
    return replace(own, scores=np.sort(own.standardised(signs, voted)))


def _by_category(
    scores: FloatArray, voted: IntArray, n_classes: int
) -> tuple[FloatArray, FloatArray]:
    """Means and spreads of the scores within categories, drawn to those of all by `_ALIKE` rows.

    Else the products of a category that varies more than the others look novel: of one with 5 % of
    a shelf's products, wide as the other, 0.43 did at p <= 0.05.
    """
    known = voted >= 0
    n = np.bincount(voted[known], minlength=n_classes)
    weights = np.maximum(n + _ALIKE, 1)
    offsets = np.bincount(voted[known], scores[known], n_classes) / weights
    apart = (scores[known] - offsets[voted[known]]) ** 2
    usual = max(float(scores.var()), _LEAST)
    variance = (np.bincount(voted[known], apart, n_classes) + _ALIKE * usual) / weights
    return offsets.astype(np.float32), np.sqrt(variance / usual).astype(np.float32)


def is_novel(p: float | None, *, arrived: bool) -> bool:
    """Whether a product is novel: what `classify`, `audit --novel` and the review queue go by.

    `p` is its p-value, None or NaN if nothing tells; `arrived`: the answer is a category that came
    after the training, so it is known by now.
    """
    return p is not None and p < NOVEL and not arrived


def p_values(scores: FloatArray, usual: FloatArray) -> Float64Array:
    """`(1 + usual scores at least as high) / (m + 1)` of each, `usual` (m,) ascending: (n,)."""
    as_high = len(usual) - np.searchsorted(usual, scores, side="left")
    p = np.asarray((1 + as_high) / (len(usual) + 1), dtype=np.float64)
    return np.where(np.isnan(scores), np.nan, p)


def present(X: FloatArray) -> BoolArray:
    """Which modalities fused embeddings (n, D) have, (n, 2): image, text."""
    half = X.shape[1] // 2
    return np.stack([X[:, :half].any(axis=1), X[:, half:].any(axis=1)], axis=1)


def view_of(X: FloatArray) -> NDArray[np.str_]:
    """One of `VIEWS` for each of the embeddings (n, D), or `none`."""
    image, text = present(X).T
    return np.where(image & text, "both", np.where(image, "image", np.where(text, "text", "none")))


def _those_that_matter(similarity: Float64Array, new: BoolArray) -> Float64Array:
    """`similarity` (n, k), -inf but for as many of the nearest as are of new categories.

    A category of ten products cannot fill the neighbourhood of any: beyond those ten, disagreement
    tells how small it is, not that the query is none of them.
    """
    rank = np.argsort(np.argsort(-similarity, axis=1, kind="stable"), axis=1)
    width = np.maximum(new.sum(axis=1), NEAREST)
    return np.where(rank < width[:, None], similarity, -np.inf)


def _disagreement(
    similarity: Float64Array, labels: IntArray, n_names: int, led_by: BoolArray | None = None
) -> Float64Array:
    """Entropy of the neighbours' vote, (n,) nats; inf unless `led_by` (n, k) have most of it."""
    heard = np.where(np.isfinite(similarity), labels, NO_VOTE)
    votes = knn_distribution(similarity, heard, TAU, n_names)
    entropy = -(votes * np.log(np.maximum(votes, np.finfo(np.float64).tiny))).sum(axis=1)
    if led_by is None:
        return np.asarray(entropy, dtype=np.float64)
    theirs = knn_distribution(similarity, np.where(heard == NO_VOTE, heard, led_by), TAU, 2)[:, 1]
    return np.where(theirs > 0.5, entropy, np.inf)


def _distance(similarity: Float64Array) -> Float64Array:
    """1 - mean similarity of the nearest that count, (n,); 1 where none does."""
    nearest = -np.sort(-similarity, axis=1)[:, :NEAREST]
    there = np.isfinite(nearest)
    mean = np.where(there, nearest, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return np.asarray(1 - mean, dtype=np.float64)


def _labels(categories: ObjectArray, classes: tuple[str, ...]) -> tuple[IntArray, tuple[str, ...]]:
    """Places (n, k) in `classes` followed by the categories that are not among them."""
    flat: list[str | None] = categories.ravel().tolist()
    others = set(flat) - set(classes) - {None}
    names = (*classes, *sorted(name for name in others if name is not None))
    place: dict[str | None, int] = {name: i for i, name in enumerate(names)} | {None: NO_VOTE}
    labels = np.array([place[name] for name in flat], dtype=np.int64)
    return labels.reshape(categories.shape), names


def _under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}
