"""Who asks: the name of the token that the request in hand carries, for the shelf's history."""

from __future__ import annotations

from contextvars import ContextVar

ASKER: ContextVar[str | None] = ContextVar("asker", default=None)
"""None where tokens have no names, or none is needed."""
