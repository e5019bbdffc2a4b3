"""The first page: drop a picture, type a title, and see the evidence card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from kinshelf.db.errors import FilterError, KinshelfError
from kinshelf.probe.pages.card import Asked, answer_values
from kinshelf.probe.pages.thumbnails import data_uri
from kinshelf.serve.base.errors import Unusable, for_people, message_of, status_of
from kinshelf.serve.base.prefix import under
from kinshelf.serve.base.schemas import Text
from kinshelf.serve.http.requests import read_body
from kinshelf.serve.http.security import reader
from kinshelf.serve.pages.files import Links
from kinshelf.serve.pages.filtering import column_names, footer, problem_of
from kinshelf.serve.pages.rendering import PageRoute, page, part, wants_part
from kinshelf.store.query import Query

if TYPE_CHECKING:
    from kinshelf.probe.predict.prediction import Prediction
    from kinshelf.serve.service.service import Service

router = APIRouter(route_class=PageRoute, dependencies=[Depends(reader)])

LIKELY = 6
"""Categories listed under the card."""

_UPLOADED = "uploaded"
FORM_BYTES = 100_000
"""Of a request that are not its picture."""


@dataclass(frozen=True, slots=True)
class _Question:
    image: bytes | None
    text: str
    where: str


@router.get("/")
async def first(request: Request) -> Response:
    """The empty form."""
    service = request.app.state.service
    blank = await service.run(_form, service, _Question(None, "", ""))
    return page(request, "classify.html", here="/", asked=False, **blank)


class _Fields(BaseModel):
    text: Text = ""
    where: Text = ""
    id: Text = ""
    category: Text = ""
    new: Text = ""
    """These three are of the form that adds it: see `editing`."""


@router.post("/ask")
async def ask(request: Request) -> Response:
    """The evidence card; nothing is stored."""
    service = request.app.state.service
    fields, data = await read_body(request, _Fields, form_only=True)
    question = _Question(data or None, fields.text, fields.where.strip())
    found: dict[str, Any] = {"error": None, "problem": None}
    status = 200
    try:
        found |= await service.run(_answer, service, question)
    except KinshelfError as error:
        status, wrong = status_of(error)[0], isinstance(error, FilterError)
        found["error"] = None if wrong else for_people(message_of(error))
        found["problem"] = problem_of(question.where, str(error)) if wrong else None
    if wants_part(request):
        return part("_answer.html", status=status, fragment=True, where=question.where, **found)
    form = await service.run(_form, service, question)
    return page(
        request,
        "classify.html",
        here="/",
        status=status,
        asked=True,
        fragment=False,
        **form | found,
    )


def _form(service: Service, asked: _Question) -> dict[str, Any]:
    now = service.snapshot()
    return {
        "text": asked.text,
        "where": asked.where,
        "problem": None,
        "columns": column_names(now),
        "most": service.settings.max_body - FORM_BYTES,
        "shelf": footer(now, service.shelf.path.name),
    }


def _answer(service: Service, asked: _Question) -> dict[str, Any]:
    if asked.image is None and not asked.text.strip():
        raise Unusable("the query is empty: give a picture, a title, or both")
    found = service.classify(
        Query(image=asked.image, text=asked.text.strip() or None, where=asked.where or None)
    )
    image = None if asked.image is None else _UPLOADED
    shown = _Shown(service, found, asked.image)
    return {
        "a": answer_values(Asked(found, image, asked.text.strip()), shown),
        "likely": list(found.probabilities.items())[:LIKELY],
        "page": under("/product?id="),
    }


class _Shown(Links):
    """The neighbours' thumbnails, and the picture that was asked about as a part of the page."""

    def __init__(self, service: Service, found: Prediction, image: bytes | None) -> None:
        ids = [evidence.neighbour.id for evidence in found.neighbours]
        super().__init__(service.snapshot().view.by_ids(ids).values())
        self._asked = None if image is None else data_uri(service.decoders.thumbnail(image, 160))

    def uri(self, image: str | None) -> str | None:
        """As `Links.uri`."""
        return self._asked if image == _UPLOADED else super().uri(image)
