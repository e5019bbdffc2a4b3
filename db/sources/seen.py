"""The ids of a source seen so far, in 16 bytes each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MIN_RECENT = 2**13


class SeenIds:
    """64-bit hashes of ids with the position at which each came first.

    Two different ids among ten million share a hash with a probability of 3 in a million. Most
    lie in two sorted arrays, the latest in a dict until they are worth merging.
    """

    def __init__(self) -> None:
        self._keys: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._positions: NDArray[np.int64] = np.empty(0, np.int64)
        self._recent: dict[int, int] = {}

    def claim(self, ids: Sequence[str], positions: Sequence[int]) -> list[int | None]:
        """For each id the position of its first claim, or None where this one is the first."""
        keys = [xxhash.xxh3_64_intdigest(name.encode()) for name in ids]
        earlier = self._merged(np.array(keys, np.uint64))
        for place, (key, position) in enumerate(zip(keys, positions, strict=True)):
            if earlier[place] is None:
                first = self._recent.setdefault(key, position)
                earlier[place] = first if first != position else None
        if len(self._recent) > max(_MIN_RECENT, len(self._keys) // 16):
            self._merge()
        return earlier

    def _merged(self, keys: NDArray[np.uint64]) -> list[int | None]:
        """First positions of the keys that lie in the arrays."""
        if not len(self._keys):
            return [None] * len(keys)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found = self._keys[places] == keys
        return [
            position if hit else None
            for position, hit in zip(self._positions[places].tolist(), found.tolist(), strict=True)
        ]

    def _merge(self) -> None:
        keys = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
        positions = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        keys = np.concatenate([self._keys, keys])
        positions = np.concatenate([self._positions, positions])
        order = np.argsort(keys, kind="stable")
        self._keys, self._positions = keys[order], positions[order]
        self._recent.clear()
