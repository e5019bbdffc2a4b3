"""Conditional requests: If-Match and If-None-Match against the tag of what would be sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fastapi import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request

_TAG = re.compile(r'(W/)?("[^"]*")')


def settled(request: Request, headers: Mapping[str, str]) -> Response | None:
    """304 or 412 where the request's conditions settle it, None where the answer is to be sent.

    `headers` are those of the answer, with a strong `ETag`.
    """
    tag = headers["ETag"]
    wanted = request.headers.get("if-match")
    if wanted is not None and not _names(wanted, tag, weak=False):
        return Response(status_code=412, headers=dict(headers))
    if _names(request.headers.get("if-none-match", ""), tag, weak=True):
        return Response(status_code=304, headers=dict(headers))
    return None


def _names(listed: str, tag: str, *, weak: bool) -> bool:
    """Whether a list of tags, or `*`, names `tag`; a weak one only where `weak` (RFC 9110, 8.8)."""
    found = _TAG.findall(listed)
    return listed.strip() == "*" or any(one == tag and (weak or not w) for w, one in found)
