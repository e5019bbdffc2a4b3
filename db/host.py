"""What kinshelf changes in a process: only in one that is its own, a command's or a worker's.

A process that imports kinshelf belongs to somebody else: its environment, its loggers and its
allocator stay as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from collections.abc import Iterator, Mapping

ENVIRONMENT = {
    # oneDNN keeps the code of every shape it has met, 1024 by default: texts alone bring hundreds.
    # It reads this at its first product.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Of a process of our own, where the user did not set it."""

_ARENA_MAX = -8
"""M_ARENA_MAX of glibc's malloc.h."""

_own = False


def take_over() -> None:
    """Call it at the start of a process that runs kinshelf and nothing else."""
    global _own  # noqa: PLW0603 (it is the process that is one or the other)
    _own = True
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _share_memory()


def _share_memory() -> None:
    """Let the threads that decode and encode share two heaps.

    With one each, what a thread has freed stays its own: a quarter more memory at the same speed.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc: nothing to share
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 2)


def mute(*loggers: str) -> None:
    """Silence libraries that log what kinshelf raises too; only in a process of our own."""
    if _own:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Have these variables inside, where the user did not set them, and not afterwards."""
    added = [name for name in changes if name not in os.environ]
    os.environ.update({name: changes[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
