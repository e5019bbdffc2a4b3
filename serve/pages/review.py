"""The review queue on a page: decide with one key, take a decision back with another."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from kinshelf.db.errors import InputError, ShelfLocked, UnknownCategory
from kinshelf.probe.audit.review_queue import CHOICES, KINDS, Item
from kinshelf.serve.base.errors import JobRunning, for_people, message_of, status_of
from kinshelf.serve.http.security import reader, writer
from kinshelf.serve.pages.browse import Generation, full_picture
from kinshelf.serve.pages.desk import JOB, Desk, kind_counts, of_kind, pick
from kinshelf.serve.pages.files import Links
from kinshelf.serve.pages.filtering import footer, known_categories
from kinshelf.serve.pages.notices import (
    generation_notice,
    locked_notice,
    new_category_notice,
    undo_word,
)
from kinshelf.serve.pages.rendering import PageRoute, address, page, part, see, wants_part
from kinshelf.store.ingest.categories import check_category
from kinshelf.store.ingest.edit import relabel
from kinshelf.store.operations.decisions import decided_in, keep, last_decision, undo_decision

if TYPE_CHECKING:
    from kinshelf.face import Shelf
    from kinshelf.probe.audit.review_queue import ReviewQueue
    from kinshelf.serve.service.jobs import Job
    from kinshelf.serve.service.service import Service
    from kinshelf.store.generation import AnySnapshot

router = APIRouter(route_class=PageRoute, dependencies=[Depends(reader)])
writing = [Depends(writer)]

AT_ONCE = 20_000
"""Up to so many products, opening the page begins to look through the shelf."""

Id = Annotated[str, Form(alias="id", max_length=2_000)]
AskedId = Annotated[str, Query(alias="id")]
Text = Annotated[str, Form(max_length=2_000)]
Tried = Annotated[int, Form(ge=0, le=1_000)]


@router.get("/review")
async def review(
    request: Request, kind: str = "", product_id: AskedId = "", done: Generation = None
) -> Response:
    """The page: an item of a kind, or of any."""
    service = request.app.state.service
    found = await service.run(_work, service, request.app.state.desk, kind, product_id)
    notice = await service.run(generation_notice, service, done, "/review", found["kind"])
    foot = await service.run(lambda: footer(service.snapshot(), service.shelf.path.name))
    return page(
        request, "review.html", here="/review", notice=notice, shelf=foot, choices=CHOICES, **found
    )


@router.get("/review/work")
async def work(request: Request, kind: str = "", product_id: AskedId = "") -> Response:
    """The part of the page that changes."""
    service = request.app.state.service
    found = await service.run(_work, service, request.app.state.desk, kind, product_id)
    return part("_work.html", **found)


@router.post("/review/look", dependencies=writing)
async def look(request: Request) -> Response:
    """Look through the shelf, from now on."""
    service, desk = request.app.state.service, request.app.state.desk
    with contextlib.suppress(JobRunning):
        await service.run(desk.look, service)  # which may import much
    if not wants_part(request):
        return see(request, "/review")
    return part("_work.html", oob=None, **await service.run(_work, service, desk, "", ""))


@router.post("/review/decide", dependencies=writing)
async def decide(
    request: Request, product_id: Id, category: Text = "", seen: Text = "", kind: Text = "",
    kept: Annotated[str, Form(alias="keep", max_length=1)] = "", new: Text = "",
    back: Text = "/review", tried: Tried = 0,
) -> Response:  # fmt: skip
    """Give a product the category, or keep the one it has, and go on to the next.

    A category that no product has is asked about first, unless `new` is given.
    """
    service = request.app.state.service
    fields = {"id": product_id, "seen": seen, "kind": kind, "back": back}
    fields |= {"keep": kept, "category": category, "new": new}
    try:
        generation = await service.run(
            service.write,
            lambda shelf: keep(shelf, product_id) if kept
            else _change(shelf, product_id, category, seen, is_new=bool(new)),
        )  # fmt: skip
    except UnknownCategory as error:
        return _asked(request, error, fields)
    except ShelfLocked as error:
        return _locked(request, error, "/review/decide", fields | {"tried": str(tried)})
    if back != "/review":
        return see(request, address("/product", id=product_id, done=generation))
    notice = await service.run(generation_notice, service, generation, back, kind)
    return await _next(request, kind, product_id, notice, done=generation)


def _change(shelf: Shelf, product_id: str, category: str, seen: str, *, is_new: bool) -> int:
    """Raises InputError if the product is not what the person saw any more."""
    if not category.strip():
        raise InputError("no category was given: choose one, or keep what it has")
    with shelf.writing():
        now = shelf.snapshot().get(product_id).product.category
        if (now or "") != seen:
            raise InputError(
                f"{product_id!r} was changed meanwhile, to {now or 'no category'}: look again"
            )
        if not is_new:
            check_category(shelf, category)
        relabel(shelf, {product_id: category})
    return shelf.generation


@router.post("/review/undo", dependencies=writing)
async def undo(
    request: Request, generation: Annotated[int, Form(ge=0, le=2**53)] = 0,
    kind: Text = "", back: Text = "/review", tried: Tried = 0,
) -> Response:  # fmt: skip
    """Take a decision back, by a new generation."""
    service = request.app.state.service
    fields = {"generation": str(generation), "kind": kind, "back": back, "tried": str(tried)}
    try:
        made, changed = await service.run(service.write, lambda shelf: _undo(shelf, generation))
    except ShelfLocked as error:
        return _locked(request, error, "/review/undo", fields)
    if back != "/review":
        return see(request, address("/product", id=changed, done=made))
    notice = await service.run(undo_word, service, made, generation, kind)
    return await _next(request, kind, changed, notice, after=False)


def _undo(shelf: Shelf, generation: int) -> tuple[int, str]:
    """The new generation, and a product that it changed."""
    _, changed = decided_in(shelf, generation)
    return undo_decision(shelf, generation), next(iter(changed), "")


async def _next(
    request: Request, kind: str, product_id: str, notice: dict[str, Any] | None, *,
    after: bool = True, done: int | None = None,
) -> Response:  # fmt: skip
    service, desk = request.app.state.service, request.app.state.desk
    found = await service.run(_work, service, desk, kind, product_id, after=after)
    if wants_part(request):
        return part("_work.html", oob=notice, **found)
    shown = found["item"].id if found.get("item") else None
    return see(request, address("/review", kind=kind, id=shown, done=done))


def _asked(request: Request, error: UnknownCategory, fields: dict[str, str]) -> Response:
    """A message that asks which category was meant."""
    target, swap = _place(fields)
    notice = new_category_notice(for_people(message_of(error)), error.near, fields, target, swap)
    if wants_part(request):
        headers = {"HX-Retarget": "#status", "HX-Reswap": "innerHTML"}
        return part("_notice.html", headers=headers, notice=notice)
    return page(
        request, "problem.html", status=409, heading="A new category?", message="", notice=notice
    )


def _place(fields: dict[str, str]) -> tuple[str, str]:
    """Where the answer to a form goes, and how it is put there."""
    return ("#work", "outerHTML") if fields["back"] == "/review" else ("#status", "innerHTML")


def _locked(request: Request, error: ShelfLocked, action: str, fields: dict[str, str]) -> Response:
    target, swap = _place(fields)
    message = for_people(message_of(error))
    notice = locked_notice(message, action, fields, target=target, swap=swap)
    status, wait = status_of(error)
    headers = {"Retry-After": str(wait)}
    if wants_part(request):
        headers |= {"HX-Retarget": "#status", "HX-Reswap": "innerHTML"}
        return part("_notice.html", status=status, headers=headers, notice=notice)
    return page(
        request, "problem.html", status=status, heading="The shelf is being written",
        message=message, notice=notice,
    )  # fmt: skip


def _work(
    service: Service, desk: Desk, kind: str, product_id: str, *, after: bool = False
) -> dict[str, Any]:
    """What `_work.html` shows."""
    kind = kind if kind in KINDS else ""
    now, queue, job = service.snapshot(), desk.queue, _newest(service)
    shown = {"looking": None, "problem": None, "queue": queue, "kind": kind}
    if job is not None and job.state == "running":
        return shown | {"looking": _progress(job)}
    if job is not None and job.state == "stopped" and queue is None:
        return shown | {"problem": "It was stopped before the end."}
    if job is not None and job.error is not None and queue is None:
        return shown | {"problem": for_people(job.error["message"])}
    if queue is None:
        return shown | {"at_once": 0 < now.count <= AT_ONCE and job is None}
    items = desk.open_items(now)
    chosen = of_kind(items, kind)
    counts = {
        "kinds": kind_counts(items), "open": len(items), "decided": len(queue.items) - len(items),
        "looked_at": queue.audit.generation, "generation": now.generation,
        "last_decision": last_decision(service.shelf),
    }  # fmt: skip
    item = pick(queue, chosen, product_id, after=after)
    return shown | counts | _item(now, queue, chosen, item)


def _item(
    now: AnySnapshot, queue: ReviewQueue, items: list[Item], item: Item | None
) -> dict[str, Any]:
    if item is None:
        return {"item": None}
    ids = queue.shown_ids(item)
    products = now.view.by_ids(ids)
    following = pick(queue, items, item.id, after=True)
    return queue.values(item, products[item.id], Links(products.values())) | {
        "item": item, "p": products[item.id].product, "full": full_picture(products[item.id]),
        "item_place": items.index(item) + 1, "item_count": len(items),
        "next_id": following.id if following else "", "categories": known_categories(now),
    }  # fmt: skip


def _newest(service: Service) -> Job | None:
    return next((job for job in service.jobs.list() if job.kind == JOB), None)


def _progress(job: Job) -> dict[str, Any]:
    blank: dict[str, Any] = {"step": "beginning", "done": 0, "parts": 0}
    event = job.events[-1] if job.events else blank
    done, parts = event["done"], event["parts"]
    left = job.left(done, parts)
    words = "" if left is None else f"about {max(left, 1):.0f} s left"
    return {"what": event["step"], "done": done, "all": parts, "left": words}
