"""Filling the shelf: suggestions by verdict and category, accepted by sheets of pictures."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from kinshelf.db.errors import InputError, ShelfLocked
from kinshelf.probe.fill.report import VERDICTS
from kinshelf.probe.fill.stored import ACCEPTED
from kinshelf.probe.pages.card import thumbnail
from kinshelf.serve.base.errors import JobRunning, for_people
from kinshelf.serve.http.security import reader, writer
from kinshelf.serve.pages.files import Links
from kinshelf.serve.pages.filtering import footer
from kinshelf.serve.pages.notices import locked_page, operation_notice
from kinshelf.serve.pages.rendering import PageRoute, address, page, part, see, wants_part
from kinshelf.serve.pages.sheets import JOB, OPEN, Sheets, counted, grouped
from kinshelf.store.operations.apply import apply_labels

if TYPE_CHECKING:
    from kinshelf.face import Shelf
    from kinshelf.probe.fill.stored import StoredAnswer
    from kinshelf.serve.service.jobs import Job
    from kinshelf.serve.service.service import Service
    from kinshelf.store.generation import AnySnapshot

router = APIRouter(route_class=PageRoute, dependencies=[Depends(reader)])
writing = [Depends(writer)]

SHEET = 48
"""Products of a group that are shown, and accepted, at a time."""
GROUPS = 5
"""Groups on a page."""
AT_ONCE = 20_000
"""Up to so many products, opening the page begins to look."""
_WORDS = {
    "accept": "Sure", "review": "To look at", "conflict": "Contradictory", "novel": "New kinds",
}  # fmt: skip

Short = Annotated[str, Form(max_length=2_000)]
Asked = Annotated[str, Query(max_length=20)]
Number = Annotated[int, Query(alias="page", ge=1, le=10_000_000)]


@router.get("/fill")
async def fill(
    request: Request, verdict: Asked = "", number: Number = 1,
    done: Annotated[int | None, Query(ge=0, le=2**53)] = None,
) -> Response:  # fmt: skip
    """The suggestions of a verdict; the sure ones, unless another is asked for."""
    service, sheets = request.app.state.service, request.app.state.sheets
    found = await service.run(_shown, service, sheets, verdict, number)
    notice = await service.run(operation_notice, service, done, found["here_again"])
    return page(request, "fill.html", here="/fill", notice=notice, **found)


@router.get("/fill/work")
async def work(request: Request, verdict: Asked = "", number: Number = 1) -> Response:
    """The part of the page that changes."""
    service, sheets = request.app.state.service, request.app.state.sheets
    return part("_fill.html", **await service.run(_shown, service, sheets, verdict, number))


@router.post("/fill/look", dependencies=writing)
async def look(request: Request) -> Response:
    """Classify all products without a category, from now on."""
    service, sheets = request.app.state.service, request.app.state.sheets
    with contextlib.suppress(JobRunning):
        await service.run(sheets.look, service)
    if not wants_part(request):
        return see(request, "/fill")
    return part("_fill.html", **await service.run(_shown, service, sheets, "", 1))


@router.post("/fill/accept", dependencies=writing)
async def accept(
    request: Request, ids: Annotated[list[str] | None, Form(alias="id", max_length=1_000)] = None,
    category: Short = "", every: Annotated[str, Form(alias="all", max_length=1)] = "",
    verdict: Short = "", number: Annotated[int, Form(alias="page", ge=1, le=10**7)] = 1,
) -> Response:  # fmt: skip
    """Accept what somebody looked at, as a person's decision; or all sure ones, as the probe's."""
    service, sheets = request.app.state.service, request.app.state.sheets
    fields = [("id", one) for one in ids or ()] + [("category", category), ("verdict", verdict)]
    try:
        if every:
            generation = await service.run(_apply, service, sheets)
        else:
            generation = await service.run(_accept, service, sheets, ids or [], category)
    except ShelfLocked as error:
        return locked_page(request, error, "/fill/accept", [*fields, ("all", every)])
    return see(request, address("/fill", verdict=verdict, page=number, done=generation))


def _accept(service: Service, sheets: Sheets, ids: list[str], category: str) -> int:
    if not ids:
        raise InputError("no product is marked: mark those that belong there")

    def change(shelf: Shelf) -> int:
        with shelf.writing():
            there = {
                a.id for a in sheets.open_answers(shelf.snapshot())
                if a.suggested_category == category
            }  # fmt: skip
            if gone := [one for one in ids if one not in there]:
                raise InputError(
                    f"{len(gone):,} of the products were changed meanwhile: look again"
                )
            shelf.relabel(dict.fromkeys(ids, category))
        return shelf.generation

    return service.write(change)


def _apply(service: Service, sheets: Sheets) -> int:
    def change(shelf: Shelf) -> int:
        sure = sheets.open_answers(shelf.snapshot(), ACCEPTED)
        if not sure:
            raise InputError("there is no sure suggestion: look at the others")
        return apply_labels(shelf, sheets.labels(sure)).generation

    return service.write(change)


def _shown(service: Service, sheets: Sheets, verdict: str, number: int) -> dict[str, Any]:
    """What `_fill.html` shows."""
    now, job = service.snapshot(), _newest(service)
    shown: dict[str, Any] = {
        "looking": None, "problem": None, "report": sheets.report, "here_again": "/fill",
        "waiting": now.view.count(now.filter(OPEN)), "generation": now.generation,
        "at_once": job is None and 0 < now.count <= AT_ONCE,
        "shelf": footer(now, service.shelf.path.name),
    }  # fmt: skip
    if job is not None and job.state == "running":
        return shown | {"looking": _progress(job)}
    if sheets.report is None:
        error = job.error["message"] if job and job.error else ""
        stopped = "It was stopped before the end." if job and job.state == "stopped" else ""
        return shown | {"problem": for_people(error) or stopped or None}
    return shown | _groups(now, sheets, verdict, number)


def _groups(now: AnySnapshot, sheets: Sheets, verdict: str, number: int) -> dict[str, Any]:
    answers = sheets.open_answers(now)
    counts = counted(answers)
    if verdict not in VERDICTS:
        verdict = next((name for name in VERDICTS if counts[name]), ACCEPTED)
    groups = grouped([a for a in answers if a.verdict == verdict])
    pages = max(-(-len(groups) // GROUPS), 1)
    number = min(number, pages)
    chosen = groups[(number - 1) * GROUPS : number * GROUPS]
    shown = [a for _, group in chosen for a in group[:SHEET]]
    pictures = Links(stored := now.view.by_rows([a.row for a in shown]).values())
    images = {each.row: each.product.image for each in stored}
    return {
        "verdict": verdict, "page": number, "pages": pages, "open": len(answers),
        "tabs": [(name, _WORDS[name], counts[name]) for name in VERDICTS if counts[name]],
        "groups": [_sheet(*each, pictures, images) for each in chosen],
        "sure": counts[ACCEPTED] if verdict == ACCEPTED else 0,
        "here_again": address("/fill", verdict=verdict, page=number),
    }  # fmt: skip


def _sheet(
    category: str, group: list[StoredAnswer], pictures: Links, images: dict[int, str | None]
) -> dict[str, Any]:
    return {
        "category": category, "count": len(group), "least": group[-1].probability,
        "most": group[0].probability,
        "products": [
            {"id": a.id, "title": a.title, "reason": a.reason, "probability": a.probability,
             "shown": thumbnail(images[a.row], pictures)}
            for a in group[:SHEET]
        ],
    }  # fmt: skip


def _newest(service: Service) -> Job | None:
    return next((job for job in service.jobs.list() if job.kind == JOB), None)


def _progress(job: Job) -> dict[str, Any]:
    event: dict[str, Any] = job.events[-1] if job.events else {"done": 0, "of": 0}
    left = job.left(event["done"], event["of"])
    words = "" if left is None else f"about {max(left, 1):.0f} s left"
    return {"done": event["done"], "all": event["of"], "left": words}
