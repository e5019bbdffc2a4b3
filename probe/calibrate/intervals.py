"""Exact bounds on a share of which only a sample was seen (Clopper and Pearson 1934)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from kinshelf.db.arrays import Float64Array
from kinshelf.db.errors import InvalidSetting


def lower_bound(right: ArrayLike, n: ArrayLike, confidence: float) -> Float64Array:
    """A lower bound of the true share, with a confidence: `right` of `n` > 0 were, shapes alike.

    One-sided: whatever the true share is, the bound exceeds it with a chance of at most
    1 - confidence.
    """
    from scipy.special import betaincinv

    found = betaincinv(np.maximum(right, 1), np.subtract(n, right) + 1.0, 1 - confidence)
    return np.asarray(np.where(np.asarray(right) > 0, found, 0.0), dtype=np.float64)


def upper_bound(right: ArrayLike, n: ArrayLike, confidence: float) -> Float64Array:
    """An upper bound of the true share, with a confidence; as `lower_bound`, from above."""
    return 1 - lower_bound(np.subtract(n, right), n, confidence)


def check_share(name: str, value: float) -> None:
    """Raises InvalidSetting unless the value lies between 0 and 1, both left out."""
    if not 0 < value < 1:
        raise InvalidSetting(f"{name} is {value!r}: it must be more than 0 and less than 1")
