"""What the server and the shelf are: info, history, health, metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response

from kinshelf.serve.requests import Served
from kinshelf.serve.security import reader

router = APIRouter(tags=["status"])
_READ = [Depends(reader)]


@router.get("/info", dependencies=_READ)
async def info(service: Served) -> dict[str, Any]:
    """What the shelf holds; as `kinshelf info --json`."""
    return await service.run(service.info)


@router.get("/history", dependencies=_READ)
async def history(
    service: Served, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> dict[str, Any]:
    """The shelf's generations, newest first; each as in `kinshelf history --json`."""
    return {"history": await service.run(service.shelf.history, limit)}


@router.get("/healthz")
async def healthz(service: Served) -> Response:
    """Whether the server takes requests: 200 `ok`, or 503 `draining`. Needs no token."""
    draining = service.running.draining
    told = {"status": "draining" if draining else "ok"}
    return JSONResponse(told, 503 if draining else 200)


@router.get("/metrics", dependencies=_READ, response_class=Response)
async def metrics(service: Served) -> Response:
    """For Prometheus."""
    text = await service.run(service.metrics.text)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
