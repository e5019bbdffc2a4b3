"""Training, and jobs in general: begin one, look how far it is, follow it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse

from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.serve.base.prefix import under
from kinshelf.serve.base.schemas import FillRequest, TrainRequest
from kinshelf.serve.http.answers import JobList, JobState, Json, answers, fails
from kinshelf.serve.http.requests import Served, body_of, read_body
from kinshelf.serve.http.security import reader, writer
from kinshelf.serve.service.jobs import Jobs

router = APIRouter(tags=["jobs"])
_READ, _WRITE = [Depends(reader)], [Depends(writer)]


@router.post(
    "/train", status_code=202, dependencies=_WRITE, **answers(JobState, 404, 409, status=202),
    openapi_extra=body_of(TrainRequest, {"epochs": 50}, picture=False),
)  # fmt: skip
async def train(request: Request, service: Served) -> Response:
    """Begin to train a probe; the job's result is as `kinshelf train --json`."""
    body, _ = await read_body(request, TrainRequest)
    chosen = body.model_dump(exclude={"warm_start"})
    settings = ProbeSettings().override(**chosen)
    job = await service.run(service.train, settings, warm_start=body.warm_start)
    return Json(job.as_dict(), 202, {"Location": under(f"/jobs/{job.id}")})


@router.post(
    "/classify-stored", status_code=202, dependencies=_WRITE,
    **answers(JobState, 404, 409, status=202),
    openapi_extra=body_of(FillRequest, {"where": "category IS NULL"}, picture=False),
)  # fmt: skip
async def classify_stored(request: Request, service: Served) -> Response:
    """Begin to classify products on the shelf. The job's result counts them by verdict, and has
    what was written if `apply` was true; as `kinshelf classify --stored --apply accept --json`."""
    body, _ = await read_body(request, FillRequest)
    job = await service.run(service.fill, **body.model_dump())
    return Json(job.as_dict(), 202, {"Location": under(f"/jobs/{job.id}")})


@router.get("/jobs", dependencies=_READ, **answers(JobList))
async def list_jobs(service: Served) -> Response:
    """The jobs that are remembered, the newest first."""
    return Json({"jobs": [job.as_dict() for job in service.jobs.list()]})


@router.get("/jobs/{number}", dependencies=_READ, **answers(JobState, 404))
async def job(number: int, service: Served) -> Response:
    """The progress of a job, and its result once it is done."""
    return Json(service.jobs.get(number).as_dict())


@router.get(
    "/jobs/{number}/events", dependencies=_READ, response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}, **fails(404)},
)  # fmt: skip
async def events(
    number: int, service: Served, after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0
) -> StreamingResponse:
    """A job's progress as server-sent events, from the `after`-th on; `end` comes last."""
    service.jobs.get(number)
    return StreamingResponse(
        _stream(service.jobs, number, after), media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )  # fmt: skip


async def _stream(jobs: Jobs, number: int, after: int) -> AsyncIterator[str]:
    async for event in jobs.follow(number, after):
        yield ": still there\n\n" if event is None else _event("progress", event[1], event[0])
    yield _event("end", jobs.get(number).as_dict())


def _event(name: str, value: Any, place: int | None = None) -> str:
    at = "" if place is None else f"id: {place}\n"
    return f"{at}event: {name}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"
