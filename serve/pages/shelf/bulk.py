"""Changing many products at once: the selected ones, or all that an address finds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response

from kinshelf.db.errors import InputError, ShelfLocked, UnknownCategory
from kinshelf.db.filters.literals import spelled
from kinshelf.serve.base.errors import Unusable, for_people, message_of
from kinshelf.serve.http.security import reader, writer
from kinshelf.serve.pages.notices import locked_page
from kinshelf.serve.pages.rendering import PageRoute, address, page, see
from kinshelf.serve.pages.shelf.finding import Finding, kinds_of, of_address
from kinshelf.store.ingest.categories import check_category
from kinshelf.store.maintain.export import export

if TYPE_CHECKING:
    from kinshelf.face import Shelf
    from kinshelf.serve.service.service import Service
    from kinshelf.store.generation import AnySnapshot

router = APIRouter(route_class=PageRoute, dependencies=[Depends(reader)])

ASKED = 50
"""So many products are removed without asking."""
_FILES = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}

Short = Annotated[str, Form(max_length=2_000)]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The products of a form: `ids`, or all of `finding`, which was seen to find `total`."""

    finding: Finding
    ids: tuple[str, ...]
    every: bool
    total: int

    def of(self, now: AnySnapshot) -> list[str]:
        """Their ids. Raises InputError where none is chosen, or others match than were shown."""
        if not self.every:
            if not self.ids:
                raise InputError("no product is selected: mark some, or all that match")
            return list(self.ids)
        where = now.filter(self.finding.whole(now, kinds_of(now)))
        found = [stored.product.id for stored in now.view.by_rows(now.view.rows(where)).values()]
        if len(found) != self.total:
            raise InputError(
                f"{self.total:,} products matched when the page was made, and {len(found):,} do"
                " now: look again"
            )
        return found

    def where(self, now: AnySnapshot) -> str | None:
        """A filter that finds them."""
        if self.every:
            return self.finding.whole(now, kinds_of(now))
        return f"id IN ({', '.join(map(spelled, self.of(now)))})"


async def _chosen(
    at: Annotated[str, Form(max_length=50_000)] = "",
    ids: Annotated[list[str] | None, Form(alias="id", max_length=1_000)] = None,
    every: Annotated[str, Form(alias="all", max_length=1)] = "",
    total: Annotated[int, Form(ge=0, le=2**53)] = 0,
) -> _Chosen:
    return _Chosen(of_address(at), tuple(dict.fromkeys(ids or ())), bool(every), total)


Chosen = Annotated[_Chosen, Depends(_chosen)]


@router.post("/shelf-do")
async def change(
    request: Request, chosen: Chosen, do: Short = "", category: Short = "", new: Short = "",
    sure: Short = "",
) -> Response:  # fmt: skip
    """What a button asks for: set a category, remove, compare, export."""
    service = request.app.state.service
    if do == "compare":
        ids = await service.run(lambda: chosen.of(service.snapshot()))
        return see(request, _compared(ids))
    if do in _FILES:
        file: Response = await service.run(_exported, service, chosen, do)
        return file
    await writer(request)
    try:
        if do == "category":
            done = await service.run(_set_category, service, chosen, category, bool(new))
        elif do == "remove":
            done = await service.run(_remove, service, chosen, bool(sure))
        else:
            raise Unusable(f"{do[:60]!r} is nothing that can be done here")
    except UnknownCategory as error:
        return _which(request, chosen, error, category)
    except _Unsure as error:
        return _really(request, chosen, error.count)
    except ShelfLocked as error:
        fields = _fields(chosen, do=do, category=category, new=new, sure=sure)
        return locked_page(request, error, "/shelf-do", fields)
    place = chosen.finding.path(page=chosen.finding.page)
    return see(request, _beside(place, done))


class _Unsure(Exception):
    """Many products would be removed."""

    def __init__(self, count: int) -> None:
        self.count = count


def _set_category(service: Service, chosen: _Chosen, category: str, is_new: bool) -> int:
    if not category.strip():
        raise InputError("no category was given: choose one, or type a new one")

    def work(shelf: Shelf) -> int:
        with shelf.writing():
            ids = chosen.of(shelf.snapshot())
            if not is_new:
                check_category(shelf, category)
            shelf.relabel(dict.fromkeys(ids, category))
        return shelf.generation

    return service.write(work)


def _remove(service: Service, chosen: _Chosen, sure: bool) -> int:
    def work(shelf: Shelf) -> int:
        with shelf.writing():
            ids = chosen.of(shelf.snapshot())
            if len(ids) > ASKED and not sure:
                raise _Unsure(len(ids))
            shelf.remove(ids)
        return shelf.generation

    return service.write(work)


def _compared(ids: Sequence[str]) -> str:
    if not 2 <= len(ids) <= 4:
        raise InputError(f"{len(ids)} products are selected: mark two to four to compare")
    return "/compare?" + "&".join(address("", id=one).removeprefix("?") for one in ids)


def _exported(service: Service, chosen: _Chosen, kind: str) -> Response:
    now = service.snapshot()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"products.{kind}"
        export(now, path, chosen.where(now))
        data = path.read_bytes()
    name = f"products-{now.generation}.{kind}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(data, media_type=_FILES[kind], headers=headers)


def _beside(place: str, generation: int) -> str:
    return f"{place}{'&' if '?' in place else '?'}done={generation}"


def _fields(chosen: _Chosen, **more: str) -> list[tuple[str, str]]:
    """The form again, for a question about it."""
    found = [("at", chosen.finding.path(page=chosen.finding.page)), ("total", str(chosen.total))]
    found += [("id", one) for one in chosen.ids] + [("all", "1")] * chosen.every
    return found + [(name, value) for name, value in more.items() if value]


def _which(request: Request, chosen: _Chosen, error: UnknownCategory, category: str) -> Response:
    """Ask whether a category that no product has is meant."""
    answers = [(name, _fields(chosen, do="category", category=name)) for name in error.near]
    new = _fields(chosen, do="category", category=category, new="1")
    answers.append((f"Create “{category}”", new))
    heading = "A new category?"
    return _question(request, chosen, heading, for_people(message_of(error)), answers)


def _really(request: Request, chosen: _Chosen, count: int) -> Response:
    """Ask whether many products are to go."""
    answers = [(f"Remove {count:,} products", _fields(chosen, do="remove", sure="1"))]
    words = "Undo in the history restores them."
    return _question(request, chosen, f"Remove {count:,} products?", words, answers)


def _question(
    request: Request, chosen: _Chosen, heading: str, words: str, answers: list[Any]
) -> Response:
    back = chosen.finding.link(page=chosen.finding.page)
    return page(
        request, "question.html", here="/shelf", status=409, heading=heading, words=words,
        answers=answers, back=back, action="/shelf-do",
    )  # fmt: skip
