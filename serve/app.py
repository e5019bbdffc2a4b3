"""The application: settings in, a FastAPI app out, with the service at `app.state.service`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from kinshelf.db.errors import InputError, KinshelfError
from kinshelf.serve import pages
from kinshelf.serve.base.errors import Unusable
from kinshelf.serve.http.limits import Limits
from kinshelf.serve.http.proxies import Behind
from kinshelf.serve.http.requests import described, known_query
from kinshelf.serve.http.security import ANY, Guard, Origin, origins_of, pages_of, read_tokens
from kinshelf.serve.pages.failures import Answers
from kinshelf.serve.routes import jobs, judging, products, queries, status
from kinshelf.serve.service.service import Service

if TYPE_CHECKING:
    from kinshelf.serve.base.settings import ServeSettings
    from kinshelf.store.encode.encoder import Encoder

DESCRIPTION = """Puts products into categories, with a calibrated probability and the products that
support it. Answers are what the command line prints with `--json`; every failure is a `Failure`.
Where the server was given tokens, send `Authorization: Bearer TOKEN`."""
_CORS: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD", "POST", "PATCH", "DELETE"],
    "allow_headers": ["Authorization", "If-Match", "If-None-Match"],
    "expose_headers": ["ETag", "Location", "Retry-After"],
}
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def create_app(settings: ServeSettings, *, encoder: Encoder | None = None) -> FastAPI:
    """The API and the page over `settings.shelf`.

    `app.state` holds `settings`, `service` and `guard`. `encoder`: one that is loaded already.
    Raises InputError (an address that needs tokens), ShelfNotFound, ShelfDamaged and their kin.
    """
    settings.check()
    named = frozenset[Origin]().union(*map(pages_of, settings.hosts))
    others = _others(settings)
    guard = Guard(_tokens(settings), _hosts(settings, named), named | others)
    app = _App(
        title="kinshelf", version=version("kinshelf"), docs_url=None, redoc_url=None,
        openapi_url=None, description=DESCRIPTION, lifespan=_lifespan,
        redirect_slashes=False,
    )  # fmt: skip
    api, own = _paths(app)
    _check_prefix(settings.prefix, own)
    service = Service(settings, encoder=encoder)
    app.state.settings, app.state.service, app.state.guard = settings, service, guard
    answer = Answers({path.split("/")[1] for path in api})
    _answer_failures(app, answer)
    app.add_middleware(
        Limits, settings=settings, guard=guard, metrics=service.metrics, answer=answer
    )
    if others:
        app.add_middleware(CORSMiddleware, **_CORS, allow_origins=list(map(str, others)))
    app.add_middleware(Behind, networks=settings.networks, prefix=settings.prefix, own=own)
    return app


class _App(FastAPI):
    """FastAPI, whose document is made when it is asked for, as it takes longer than the rest."""

    def openapi(self) -> dict[str, Any]:
        """Also how a token is sent; without a token file none is needed."""
        document = super().openapi()
        document.setdefault("components", {})["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"}
        }
        document["security"] = [{"token": []}, {}]
        return document


def _paths(app: FastAPI) -> tuple[frozenset[str], frozenset[str]]:
    """Add the routes. Returns the paths of the API, and all."""
    api = [part.router for part in (queries, products, judging, jobs, status)]
    for router in api:
        # a probe of health may add to its address what it likes
        checks = [] if router is status.router else [Depends(known_query)]
        app.include_router(router, dependencies=checks)
    return _paths_of(api), _paths_of(api + pages.install(app))


def _paths_of(routers: list[APIRouter]) -> frozenset[str]:
    routes = [route for router in routers for route in router.routes]
    return frozenset(route.path for route in routes if isinstance(route, APIRoute))


def _check_prefix(prefix: str, own: frozenset[str]) -> None:
    if prefix and any(path.startswith(f"{prefix}/") for path in own):
        raise InputError(f"{prefix!r} is also an address of this server: choose another prefix")


def _tokens(settings: ServeSettings) -> Any:
    return None if settings.token_file is None else read_tokens(settings.token_file)


def _hosts(settings: ServeSettings, named: frozenset[Origin]) -> frozenset[str] | None:
    """The names that a Host header may have; None: any, as tokens protect what others reach."""
    if not settings.loopback and not named:
        return None
    return _LOCAL | {settings.host.casefold()} | {page.host for page in named}


def _others(settings: ServeSettings) -> frozenset[Origin]:
    """The other sites whose pages may ask. Raises InputError."""
    origins = origins_of(settings.cors)
    if ANY in origins and settings.token_file is None:
        raise InputError("any page of any site could read the shelf: give --token-file beside it")
    return origins


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.service.begin()
    yield
    await _in_thread(app.state.service.close)


async def _in_thread(work: Any) -> None:
    from anyio.to_thread import run_sync

    await run_sync(work)


def _answer_failures(app: FastAPI, answer: Answers) -> None:
    @app.exception_handler(KinshelfError)
    def failed(request: Request, error: KinshelfError) -> Response:
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    def unusable(request: Request, error: RequestValidationError) -> Response:
        return answer(request, Unusable(described(error.errors())))

    @app.exception_handler(HTTPException)
    def no_route(request: Request, error: HTTPException) -> Response:
        return answer.without_route(request, error)
