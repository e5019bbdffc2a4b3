"""The login page: a form that puts the token in a cookie."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from kinshelf.serve.base.prefix import under
from kinshelf.serve.http.security import COOKIE
from kinshelf.serve.pages.rendering import PageRoute, page, see

router = APIRouter(route_class=PageRoute)


@router.get("/login")
async def form(request: Request, to: str = "/") -> Response:
    """The form; nothing where no token is needed."""
    if not request.app.state.guard.needs_token:
        return see(request, "/")
    return page(request, "login.html", to=to, error=None)


@router.post("/login")
async def login(
    request: Request, token: Annotated[str, Form(max_length=1_000)],
    to: Annotated[str, Form(max_length=20_000)] = "/",
) -> Response:  # fmt: skip
    """Keep a token that is known, out of scripts' reach and for this site alone."""
    if not request.app.state.guard.scopes(token.strip()):
        wrong = "This token is not known."
        return page(request, "login.html", status=401, to=to, error=wrong)
    answer = see(request, to if _is_ours(to) else "/")
    secure = request.url.scheme == "https"
    answer.set_cookie(
        COOKIE, token.strip(), path=under("/"), httponly=True, samesite="strict", secure=secure
    )
    return answer


def _is_ours(to: str) -> bool:
    """A path of this server: `//host` and `/\\host` would lead elsewhere, as they would with a tab
    between, and a line end would begin another header."""
    return re.fullmatch(r"/(?![/\\])[!-~]*", to) is not None
