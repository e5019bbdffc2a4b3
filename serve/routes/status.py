"""Routes on the state of server and shelf: info, history, health, metrics."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from kinshelf.serve.base.prefix import PREFIX
from kinshelf.serve.http.answers import Changes, Health, Json, ShelfInfo, answers, fails
from kinshelf.serve.http.requests import Served
from kinshelf.serve.http.security import reader

router = APIRouter(tags=["status"])
_READ = [Depends(reader)]


@router.get("/info", dependencies=_READ, **answers(ShelfInfo))
async def info(service: Served) -> Response:
    """The figures of the shelf, as `kinshelf info --json`."""
    return Json(await service.run(service.info))


@router.get("/history", dependencies=_READ, **answers(Changes))
async def history(
    service: Served,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    generations: bool = False,
) -> Response:
    """What was done to the shelf, newest first, a command or request at a time; with `generations`
    each of its changes. As `kinshelf history --json`."""
    listed = service.shelf.history if generations else service.shelf.operations
    return Json({"history": await service.run(listed, limit)})


@router.get("/healthz", **answers(Health))
async def healthz(service: Served) -> Response:
    """Whether the server takes requests: 200 `ok`, or 503 `draining`. Needs no token."""
    draining = service.running.draining
    answer = {"status": "draining" if draining else "ok"}
    return Json(answer, 503 if draining else 200)


@router.get(
    "/metrics", dependencies=_READ, response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **fails()},
)  # fmt: skip
async def metrics(service: Served) -> Response:
    """For Prometheus."""
    text = await service.run(service.metrics.text)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/openapi.json", dependencies=_READ, include_in_schema=False)
async def openapi(request: Request, service: Served) -> Response:
    """This API, for programs that make clients of it."""
    place = {"servers": [{"url": PREFIX.get()}]} if PREFIX.get() else {}
    return Json(await service.run(request.app.openapi) | place)
