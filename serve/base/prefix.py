"""The prefix of the server's addresses: where a proxy serves it, such as `/shop`."""

from __future__ import annotations

import re
from contextvars import ContextVar

PREFIX: ContextVar[str] = ContextVar("prefix", default="")
"""That of the request that is being answered, in its threads too."""

_PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")


def is_prefix(text: str) -> bool:
    """Whether it is a plain path, without `..` and without a slash at its end."""
    return _PREFIX.fullmatch(text) is not None


def under(path: str) -> str:
    """The address of a path of this server, as a browser asks for it."""
    return PREFIX.get() + path
