"""The neighbours' vote: how k nearest products speak for categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinshelf.probe.data import FloatArray, IntArray

Float64Array = NDArray[np.float64]

NO_VOTE = -1
"""Label of a neighbour that does not vote: it is missing, or has no category."""


def knn_distribution(
    similarities: NDArray[np.floating], labels: IntArray, tau: float, n_classes: int
) -> Float64Array:
    """Each class's share of the neighbour weight `exp(similarity / tau)`.

    `similarities` and `labels` are (n, k), a label a class in [0, n_classes) or `NO_VOTE`.
    Returns (n, n_classes) float64; a row sums to 1, or to 0 where nobody votes.
    """
    voting = labels != NO_VOTE
    scores = np.where(voting, np.asarray(similarities, dtype=np.float64) / tau, -np.inf)
    # the largest weight of a row becomes 1: no overflow, and shares do not change
    top = np.max(scores, axis=1, initial=-np.inf, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    votes = np.zeros((len(labels), n_classes), dtype=np.float64)
    row, place = np.nonzero(voting)
    np.add.at(votes, (row, labels[row, place]), weights[row, place])
    total = votes.sum(axis=1, keepdims=True)
    return np.divide(votes, total, out=votes, where=total > 0)
