"""Paging: limits the share of a large mapping that counts as this process's memory.

A page that was looked at once counts for good, and Linux brings its neighbours along: a few
thousand rows here and there, and all of a shelf's vectors are resident. Of a large mapping they are
let go of again; they stay in the system's cache, so that the next look finds them at once.
"""

from __future__ import annotations

import mmap

import numpy as np

from kinshelf.db.arrays import FloatArray

LARGE = 1 << 30
"""Bytes; a smaller mapping may be resident whole."""
AT_ONCE = 128 << 20
"""Bytes that are looked at before they are let go of."""
_AROUND = 1 << 16
"""Linux maps so many bytes around one that was looked at (fault_around_bytes)."""


class _Seen:
    def __init__(self) -> None:
        self.bytes = 0


_seen = _Seen()


def looked_at(vectors: FloatArray, rows: int, *, apart: bool) -> None:
    """Count rows of `vectors` that were read, one after the other or `apart` from each other.

    An estimate is kept, of all mappings in one; threads may lose a part of it to each other.
    """
    mapping = _mapping(vectors)
    if mapping is None or len(mapping) < LARGE or not hasattr(mmap, "MADV_DONTNEED"):
        return
    width = int(vectors.strides[0])
    _seen.bytes += rows * (max(width, _AROUND) if apart else width)
    if _seen.bytes >= AT_ONCE:
        _seen.bytes = 0
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(array: FloatArray) -> mmap.mmap | None:
    """What an array is a view of, if that is a file."""
    base: object = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None
