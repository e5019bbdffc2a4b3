"""The operation that changes belong to: one command, however many generations its batches take."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinshelf.db.catalog.records import Head

_MOST = 200


@dataclass(slots=True)
class Operation:
    """Who changes a shelf; `first`: the generation of its first change, by the shelf's name."""

    who: str
    first: dict[str, int] = field(default_factory=dict)

    def stamp(self, head: Head, shelf: str, generation: int) -> Head:
        """The head of a change with its operation, whose number is that of its first change."""
        return {"operation": self.first.setdefault(shelf, generation), "who": self.who, **head}


_current: ContextVar[Operation | None] = ContextVar("operation", default=None)


@contextlib.contextmanager
def operation(who: str | None = None) -> Iterator[Operation]:
    """Have all changes inside be one operation; inside another one, they are part of that.

    `who` None: the user and the machine of this process.
    """
    if (outer := _current.get()) is not None:
        yield outer
        return
    token = _current.set(Operation((who or user())[:_MOST]))
    try:
        yield _current.get() or Operation("")
    finally:
        _current.reset(token)


def stamped(head: Head, shelf: str, generation: int) -> Head:
    """The head with the operation that is under way, a new one if there is none."""
    with operation() as current:
        return current.stamp(head, shelf, generation)


def user() -> str:
    """The user and the machine of this process, as user@host."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        name = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    text = f"{name}@{socket.gethostname()}"
    return text.encode("utf-8", "replace").decode()
