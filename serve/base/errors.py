"""Failures as answers: one JSON shape for each, with a status by what is wrong.

{"error": {"type": "ShelfLocked", "message": "... is being written by process 12 ...",
           "reason": null, "retry_after": 1}}
"""

from __future__ import annotations

import itertools
import re
from typing import Any

from kinshelf.db import errors
from kinshelf.db.errors import KinshelfError


class RequestRefused(KinshelfError):
    """A request that the server does not serve, whatever the shelf holds."""

    status = 400
    retry_after: int | None = None


class Unauthorised(RequestRefused):
    """The request has no token, or an unknown one."""

    status = 401


class Forbidden(RequestRefused):
    """A token without the scope, or a page of another site."""

    status = 403


class JobNotFound(RequestRefused):
    """There is no job of that number (any more)."""

    status = 404


class JobRunning(RequestRefused):
    """A job of that kind is under way."""

    status = 409
    retry_after = 5


class TooLarge(RequestRefused):
    """The body has more bytes than are taken."""

    status = 413


class Unusable(RequestRefused):
    """The request is well-formed, but asks for what cannot be."""

    status = 422


class TooBusy(RequestRefused):
    """More requests are waiting than can be worked on."""

    status = 429
    retry_after = 1


class TooManyRequests(RequestRefused):
    """An address sends more requests than its limit."""

    status = 429
    retry_after = 1


class ServerFailed(RequestRefused):
    """A mistake of the server's own."""

    status = 500


class TooSlow(RequestRefused):
    """The request took longer than it may; what it computes may be ready when asked again."""

    status = 503
    retry_after = 5


class ShuttingDown(RequestRefused):
    """The server ends, and begins nothing more."""

    status = 503
    retry_after = 5


_LONGEST = 2000
"""Characters of a message."""

_REASONS = {
    "not-an-image": "the file is not a picture of a kind that is read here: use JPEG, PNG or WebP",
    "private-address": "the picture's address leads to this server's own network: nothing is"
    " fetched from there",
}
"""Pictures' reasons whose messages quote bytes, or a setting that a request does not have."""

_OPTION = re.compile(r"(?<![\w-])--[a-z]")

_STATUS: tuple[tuple[type[KinshelfError], int, int | None], ...] = (
    (errors.ShelfLocked, 423, 2),
    (errors.ProductNotFound, 404, None),
    (errors.GenerationNotFound, 404, None),
    (errors.ProbeNotFound, 404, None),
    (errors.EmptyShelf, 409, None),
    (errors.TooFewClasses, 409, None),
    (errors.DuplicateId, 409, None),
    (errors.UnknownCategory, 409, None),
    (errors.EncoderMismatch, 409, None),
    (errors.EncoderError, 503, 30),
    (errors.ShelfError, 500, None),
    (KinshelfError, 422, None),
)
"""The first class that fits decides: its status, and after how many seconds to try again."""


def status_of(error: KinshelfError) -> tuple[int, int | None]:
    """The HTTP status, and the seconds of a Retry-After header if trying again may help."""
    if isinstance(error, RequestRefused):
        return error.status, error.retry_after
    return next((status, wait) for kind, status, wait in _STATUS if isinstance(error, kind))


def message_of(error: KinshelfError) -> str:
    """What went wrong, in a bounded number of characters, whatever it quotes."""
    message = _REASONS.get(getattr(error, "reason", None) or "", str(error))
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]} ..."


def for_people(message: str) -> str:
    """A message for a page: without the clauses that name options of the command line."""
    clauses = re.split(r"(?<=[:;])\s+", message)
    kept = itertools.takewhile(lambda clause: not _OPTION.search(clause), clauses)
    return " ".join(kept).rstrip(":;") or message


def error_body(error: KinshelfError) -> dict[str, Any]:
    """The answer that the client receives."""
    failure = {
        "type": type(error).__name__,
        "message": message_of(error),
        "reason": getattr(error, "reason", None),
        "retry_after": status_of(error)[1],
    }
    if isinstance(error, errors.UnknownCategory):
        failure["near"] = error.near
    return {"error": failure}
