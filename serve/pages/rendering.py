"""Templates as answers: a whole page, or the part of one that htmx asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import xxhash
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from kinshelf.db.errors import KinshelfError
from kinshelf.probe.pages.html import TEMPLATES as SHARED
from kinshelf.probe.pages.html import environment as shared_environment
from kinshelf.serve.base.errors import Unauthorised, for_people, message_of, status_of
from kinshelf.serve.base.prefix import PREFIX, under

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).resolve().parents[1]
_STATIC = _HERE / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@functools.cache
def static_files() -> dict[str, tuple[bytes, str, str]]:
    """Every file of the page by name: its bytes, media type and version."""
    paths = [*_STATIC.iterdir(), SHARED / "style.css"]
    return {path.name: _file(path) for path in paths if path.suffix in _TYPES}


def _file(path: Path) -> tuple[bytes, str, str]:
    data = path.read_bytes()
    return data, _TYPES[path.suffix], xxhash.xxh3_64_hexdigest(data)


def static(name: str) -> str:
    """The address of a file, which changes with its content."""
    return under(f"/static/{name}?v={static_files()[name][2]}")


@functools.cache
def environment() -> Environment:
    """That of the pages that are files, with the page's own templates before theirs."""
    from jinja2 import ChoiceLoader, FileSystemLoader

    loader = ChoiceLoader([FileSystemLoader(_HERE / "templates"), FileSystemLoader(SHARED)])
    made = shared_environment().overlay(loader=loader)
    made.filters.update(price="{:,.2f}".format)
    made.globals.update(static=static, root=PREFIX.get)
    return made


def wants_part(request: Request) -> bool:
    """Whether htmx asks, which puts a part of a page into the one that is open."""
    return request.headers.get("hx-request") == "true"


def part(template: str, *, status: int = 200, headers: Any = None, **values: Any) -> HTMLResponse:
    """A template as it is."""
    text = environment().get_template(template).render(**values)
    return HTMLResponse(text, status, {"Cache-Control": "no-store"} | (headers or {}))


def page(
    request: Request, template: str, *, here: str = "", status: int = 200, **values: Any
) -> HTMLResponse:
    """A whole page; `here` is its place in the navigation."""
    return part(template, status=status, here=here, **values)


def address(path: str, /, **query: Any) -> str:
    """A path of this server with what is given of a query."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given, quote_via=quote)}" if given else path


def see(request: Request, where: str) -> Response:
    """Send the browser to another address of this server."""
    where = under(where)
    if wants_part(request):
        return Response(status_code=200, headers={"HX-Redirect": where})
    return RedirectResponse(where, 303)


def notice(text: str, tone: str = "good", **more: Any) -> dict[str, Any]:
    """A message for the page's status line."""
    return {"text": text, "tone": tone, "undo": None, "link": None} | more


class PageRoute(APIRoute):
    """Failures as a page or a message, where the API's routes answer with JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wraps FastAPI's own."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except Unauthorised:
                query = f"?{request.url.query}" if request.url.query else ""
                path = request.url.path.removeprefix(PREFIX.get())
                to = path + query if request.method == "GET" else "/"
                return see(request, address("/login", to=to))
            except RequestValidationError as error:
                return failure(request, _unreadable(error), 422)
            except KinshelfError as error:
                status, wait = status_of(error)
                return failure(request, for_people(message_of(error)), status, wait)

        return handled


def _unreadable(error: RequestValidationError) -> str:
    """The first of what a form or an address lacks, or has wrong."""
    problem = error.errors()[0]
    name = str(problem["loc"][-1])[:60]
    if problem["type"] == "missing":
        return f"{name} is missing."
    return f"{name} cannot be {str(problem['input'])[:60]!r}."


def failure(request: Request, text: str, status: int, wait: int | None = None) -> Response:
    """A message in the status line of the page that is open, or a page of its own."""
    headers: dict[str, str] = {} if wait is None else {"Retry-After": str(wait)}
    if wants_part(request):
        aside = {"HX-Retarget": "#status", "HX-Reswap": "innerHTML"}
        return part(
            "_notice.html", status=status, headers=aside | headers, notice=notice(text, "bad")
        )
    heading = "Not found" if status == 404 else "This did not work"
    found = page(request, "problem.html", status=status, heading=heading, message=text)
    found.headers.update(headers)
    return found
