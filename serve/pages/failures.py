"""Failures outside of the page's routes: a page for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from fastapi.responses import JSONResponse, Response

from kinshelf.serve.base.errors import error_body, for_people, message_of, status_of
from kinshelf.serve.base.prefix import PREFIX
from kinshelf.serve.pages.rendering import failure

if TYPE_CHECKING:
    from fastapi import Request
    from starlette.exceptions import HTTPException

    from kinshelf.db.errors import KinshelfError

_WORDS = {
    404: "There is no such page.",
    405: "This page cannot be opened like that.",
}


class Answers:
    """Tells failures; `api` are the first parts of the API's addresses."""

    def __init__(self, api: Set[str]) -> None:
        self._api = api

    def __call__(self, request: Request, error: KinshelfError) -> Response:
        """Answer with a failure of ours."""
        status, wait = status_of(error)
        if self._is_for_people(request):
            return failure(request, for_people(message_of(error)), status, wait)
        headers = {} if wait is None else {"Retry-After": str(wait)}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(error_body(error), status, headers)

    def without_route(self, request: Request, error: HTTPException) -> Response:
        """Answer where no route fits, or FastAPI cannot read a form."""
        if self._is_for_people(request):
            words = _WORDS.get(error.status_code, "This cannot be read.")
            answer = failure(request, words, error.status_code)
            answer.headers.update(error.headers or {})
            return answer
        told = {"type": "HTTPException", "message": str(error.detail), "reason": None}
        body = {"error": told | {"retry_after": None}}
        return JSONResponse(body, error.status_code, error.headers)

    def _is_for_people(self, request: Request) -> bool:
        """Whether it is no address of the API, and JSON is not what is asked for."""
        accepted = request.headers.get("accept", "")
        first = request.scope["path"].removeprefix(PREFIX.get()).strip("/").partition("/")[0]
        return first not in self._api and (
            "application/json" not in accepted or "text/html" in accepted
        )
