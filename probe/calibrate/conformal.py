"""Prediction sets with stated coverage, from the predictions for held-out rows.

Split conformal prediction (Vovk et al. 2005; the score 1 - p of the category is LAC of Sadinle et
al. 2019, arXiv 1609.00451): a category is in the set unless fewer than the share 1 - coverage of
the held-out rows had a true category as improbable. Class-conditional where a category has enough
held-out rows of its own, so that the coverage holds for each of these; pooled otherwise. Likewise
by the modalities that a query has (Mondrian categories), where held-out rows were judged by these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray
from kinshelf.probe.novelty.model import p_values

COVERAGE = 0.95
"""Share of products whose category the set of `classify` holds."""

ENOUGH = 200
"""Held-out rows that make a category's own distribution. With 50 its quantile rests on two or three
rows: as many wrong labels put the category into nearly every set."""

FEWEST_OF_VIEW = 50
"""Held-out rows that make the distribution of a view; fewer are judged by all."""


@dataclass(frozen=True, slots=True, eq=False)
class Conformal:
    """Scores of n held-out rows, (n,) float32 ascending, the classes' codes, (n,) int64, and which
    modalities were seen, (n,) int64, places in `VIEWS`; None: not known."""

    scores: FloatArray
    codes: IntArray
    views: IntArray | None = None

    @classmethod
    def fit(cls, given: Float64Array, codes: IntArray, views: IntArray | None = None) -> Self:
        """From the probability `given` to the true class of held-out rows, (n,), its code, and
        which modalities were seen."""
        scores = np.asarray(1 - given, dtype=np.float32)
        order = np.argsort(scores, kind="stable")
        return cls(scores[order], codes[order], None if views is None else views[order])

    def over(self, classes: Sequence[str], wider: Sequence[str]) -> Self:
        """The same for answers over `wider`, which hold the `classes` that it was fitted on."""
        place = {name: code for code, name in enumerate(wider)}
        moved = np.array([place[name] for name in classes], dtype=np.int64)
        return type(self)(self.scores, moved[self.codes], self.views)

    def p_values(self, proba: Float64Array, views: IntArray | None = None) -> Float64Array:
        """P-values of each class of answers (n, n_classes): the share of held-out rows, the row
        itself counted, whose true class was as improbable. Classes that no held-out row has are
        judged by all of them. `views` (n,) are the modalities that each query had."""
        if self.views is None or views is None:
            return self._by_class(proba)
        found = np.empty(proba.shape, dtype=np.float64)
        for view in np.unique(views):
            asked = views == view
            found[asked] = self._of_view(int(view))._by_class(proba[asked])
        return found

    def _of_view(self, view: int) -> Self:
        if self.views is None:
            return self
        own = self.views == view
        if own.sum() < FEWEST_OF_VIEW:
            return self
        return type(self)(self.scores[own], self.codes[own])

    def _by_class(self, proba: Float64Array) -> Float64Array:
        found = np.empty(proba.shape, dtype=np.float64)
        own = np.bincount(self.codes, minlength=proba.shape[1])
        for code in range(proba.shape[1]):
            alone = own[code] >= ENOUGH
            scores = self.scores[self.codes == code] if alone else self.scores
            found[:, code] = p_values(np.asarray(1 - proba[:, code], dtype=np.float32), scores)
        return found

    def sets(
        self, proba: Float64Array, coverage: float = COVERAGE, views: IntArray | None = None
    ) -> BoolArray:
        """Which classes are in each set, (n, n_classes).

        A set is empty where every class is less probable than the true one of nearly all held-out
        rows: the product is unlike them.
        """
        return np.asarray(self.p_values(proba, views) > 1 - coverage, dtype=np.bool_)

    def pooled(self, n_classes: int) -> int:
        """The number of classes with too few rows of their own."""
        own = self._of_view(0).codes
        return int((np.bincount(own, minlength=n_classes)[:n_classes] < ENOUGH).sum())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, to be stored with a probe."""
        own: dict[str, NDArray[Any]] = {"scores": self.scores, "codes": self.codes}
        if self.views is not None:
            own["views"] = self.views
        return {f"conformal.{name}": column for name, column in own.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self | None:
        """Read from stored `arrays`; None if they hold none."""
        if "conformal.scores" not in arrays:
            return None
        return cls(
            arrays["conformal.scores"], arrays["conformal.codes"], arrays.get("conformal.views")
        )
