"""The history: what was done to the shelf, by whom, what it changed, and taking it back."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from kinshelf.db.errors import ShelfLocked
from kinshelf.serve.http.security import reader, writer
from kinshelf.serve.pages.filtering import footer
from kinshelf.serve.pages.notices import locked_page, operation_notice, summary
from kinshelf.serve.pages.rendering import PageRoute, address, page, see
from kinshelf.store.operations.diff import Change, differences
from kinshelf.store.operations.history import CHANGES, COUNTS, operation_of, operations
from kinshelf.store.operations.undo import undo

if TYPE_CHECKING:
    from kinshelf.serve.service.service import Service

router = APIRouter(route_class=PageRoute, dependencies=[Depends(reader)])

PER_PAGE = 50
SHOWN = 200
"""Products of one operation that its page lists."""
_OPENED = "origin."
_PLACES = ("/shelf", "/product", "/fill")
"""Pages that an undo leads back to."""

Generation = Annotated[int | None, Query(ge=0, le=2**53)]


@router.get("/changes")
async def history(
    request: Request,
    number: Annotated[int, Query(alias="page", ge=1, le=10_000_000)] = 1,
    done: Generation = None,
) -> Response:
    """The operations, newest first."""
    service = request.app.state.service
    found = await service.run(_listed, service, number)
    notice = await service.run(operation_notice, service, done, "/changes")
    return page(request, "history.html", here="/changes", notice=notice, **found)


def _listed(service: Service, number: int) -> dict[str, Any]:
    every = operations(service.shelf)
    pages = max(-(-len(every) // PER_PAGE), 1)
    number = min(number, pages)
    shown = every[(number - 1) * PER_PAGE : number * PER_PAGE]
    return {
        "rows": [_row(one) for one in shown], "page": number, "pages": pages,
        "shelf": footer(service.snapshot(), service.shelf.path.name),
    }  # fmt: skip


def _row(one: dict[str, Any]) -> dict[str, Any]:
    changes = one["kind"] in CHANGES
    return one | {
        "summary": summary(one) if changes else one["command"] or one["kind"], "changes": changes,
        "counts": ", ".join(f"{one[n]:,} {n}" for n in COUNTS if one[n]),
        "may_undo": changes and one["kept"] and one["undone_by"] is None,
    }  # fmt: skip


@router.get("/changes/operation")
async def one(
    request: Request, number: Annotated[int, Query(alias="number", ge=0, le=2**53)]
) -> Response:
    """What one operation changed, product by product and field by field."""
    service = request.app.state.service
    found = await service.run(_compared, service, number)
    return page(request, "operation.html", here="/changes", **found)


def _compared(service: Service, number: int) -> dict[str, Any]:
    wanted = operation_of(service.shelf, number)
    changes: list[Change] = []
    if wanted["kept"] and wanted["kind"] in CHANGES:
        before, after = wanted["operation"] - 1, wanted["generation"]
        found = differences(service.shelf, before, after)
        changes = list(itertools.islice(found, SHOWN + 1))
    return {
        "one": _row(wanted), "changes": [_change(each) for each in changes[:SHOWN]],
        "more": len(changes) > SHOWN, "most": SHOWN,
        "shelf": footer(service.snapshot(), service.shelf.path.name),
    }  # fmt: skip


def _change(change: Change) -> dict[str, Any]:
    stored = change.after or change.before
    fields = [
        (name.removeprefix("attributes."), before, after)
        for name, (before, after) in change.fields.items()
        if not name.startswith(_OPENED) and change.kind == "changed"
    ]
    return {
        "id": change.id, "title": stored.product.title if stored else "", "kind": change.kind,
        "fields": fields,
    }  # fmt: skip


@router.post("/changes/undo", dependencies=[Depends(writer)])
async def take_back(
    request: Request,
    operation: Annotated[int, Form(ge=0, le=2**53)],
    back: Annotated[str, Form(max_length=50_000)] = "/changes",
) -> Response:
    """Take an operation back, by a new one."""
    service = request.app.state.service
    try:
        report = await service.run(service.write, lambda shelf: undo(shelf, operation))
    except ShelfLocked as error:
        fields = [("operation", str(operation)), ("back", back)]
        return locked_page(request, error, "/changes/undo", fields)
    if report.left:
        return see(request, address("/changes/operation", number=report.generation))
    place = back if back.partition("?")[0] in _PLACES else "/changes"
    return see(request, f"{place}{'&' if '?' in place else '?'}done={report.generation}")
