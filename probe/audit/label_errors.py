"""Labels that are probably wrong: confident learning over out-of-fold distributions.

Northcutt, Jiang and Chuang 2021, arXiv 1911.00068: a product is counted as an error if its
distribution reaches another category's own usual confidence. Ranked by normalised margin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class LabelErrors:
    """Per product (m,): `score` float32 in [0, 1], higher is more suspect, 0.5 where another
    category is as probable as the given one; `suggested` int64 the most probable other category,
    `probability` float32 its own, `flagged` bool."""

    score: FloatArray
    suggested: IntArray
    probability: FloatArray
    flagged: BoolArray


def find_label_errors(proba: FloatArray, codes: IntArray) -> LabelErrors:
    """`proba` (m, n_classes) out of fold, n_classes > 1; `codes` (m,) the given categories."""
    each = np.arange(len(codes))
    given = proba[each, codes]
    others = proba.copy()
    others[each, codes] = -1
    suggested = others.argmax(axis=1)
    probability = others[each, suggested]
    score = (1 + probability - given) / 2
    flagged = _confident(proba, codes, usual_confidence(given, codes, proba.shape[1]))
    return LabelErrors(score, suggested, probability, flagged)


def usual_confidence(given: FloatArray, codes: IntArray, n_classes: int) -> FloatArray:
    """Mean probability of a category among the products that are given it, (n_classes,)."""
    count = np.bincount(codes, minlength=n_classes)
    total = np.bincount(codes, weights=given, minlength=n_classes)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), 1.0), dtype=np.float32)


def _confident(proba: FloatArray, codes: IntArray, usual: FloatArray) -> BoolArray:
    """Off the diagonal of the confident joint (equations 1 and 2 of the paper)."""
    reached = np.where(proba >= usual, proba, -1)
    counted = reached.argmax(axis=1)
    return np.asarray((reached.max(axis=1) >= 0) & (counted != codes))
