"""The number of threads of the numeric libraries: one setting for all of them.

`KINSHELF_THREADS` is a number; without it, the machine's cores. One query is always searched on
one thread: a second one costs more to wake than it saves.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
from typing import Any

from kinshelf.db.errors import InputError
from kinshelf.db.host import take_over

SETTING = "KINSHELF_THREADS"
_LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_SINGLE = 4
"""Up to so many queries are searched on one thread."""


def threads() -> int:
    """The number of threads, at least 1. Raises InputError for a setting that is no such number."""
    given = os.environ.get(SETTING, "").strip()
    if not given:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores()
    if not given.isascii() or not given.isdigit() or not int(given):
        raise InputError(f"{SETTING} is {given!r}: give a whole number from 1, or leave it unset")
    return int(given)


def _cores() -> int:
    return os.cpu_count() or 1


def announce() -> None:
    """Take the process over, and hand the setting to libraries that read their own at import.

    For commands alone, before NumPy is imported. What the user set for a library itself stays as
    it is. Raises InputError as `threads` does.
    """
    take_over()
    if os.environ.get(SETTING, "").strip():
        for name in _LIBRARIES:
            os.environ.setdefault(name, str(threads()))


def return_memory() -> None:
    """Give the system back what was freed; after something large was let go of."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc: it keeps what it has
        ctypes.CDLL(None).malloc_trim(0)


class _OneBlasThread:
    """While anybody is inside, BLAS uses one thread; the last one out puts its setting back."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._limits: Any = None

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits

        with self._lock:
            if not self._inside:
                self._limits = threadpool_limits(1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limits.restore_original_limits()


one_blas_thread = _OneBlasThread()


def faiss_for(queries: int) -> Any:
    """FAISS, set to the threads that so many queries deserve in the calling thread."""
    import faiss

    faiss.omp_set_num_threads(1 if queries <= _SINGLE else threads())
    return faiss
