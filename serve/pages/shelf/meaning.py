"""Products near to words or to a picture, among those that an address lets in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from kinshelf.db.errors import EmptyShelf
from kinshelf.probe.pages.card import neighbour
from kinshelf.serve.base.errors import Unusable
from kinshelf.serve.base.schemas import Text
from kinshelf.serve.http.requests import read_body
from kinshelf.serve.http.security import reader
from kinshelf.serve.pages.files import Links
from kinshelf.serve.pages.filtering import footer
from kinshelf.serve.pages.rendering import PageRoute, page, part, wants_part
from kinshelf.serve.pages.shelf.finding import Finding, kinds_of, of_address
from kinshelf.serve.pages.shelf.listing import Found
from kinshelf.store.query import Query

if TYPE_CHECKING:
    from kinshelf.serve.service.service import Service

router = APIRouter(route_class=PageRoute, dependencies=[Depends(reader)])

NEAR = 24


@router.get("/shelf/near")
async def near_words(request: Request, finding: Found) -> Response:
    """What the words of an address mean, beside the products that hold them."""
    return await _answer(request, finding, None)


class _Picture(BaseModel):
    at: Text = ""
    text: Text = ""


@router.post("/shelf/near")
async def near_picture(request: Request) -> Response:
    """What resembles an example picture, with words or without."""
    given, data = await read_body(request, _Picture, form_only=True)
    finding = replace(of_address(given.at), q=given.text.strip())
    return await _answer(request, finding, data or None)


async def _answer(request: Request, finding: Finding, image: bytes | None) -> Response:
    service = request.app.state.service
    found = await service.run(_near, service, finding, image)
    if wants_part(request):
        return part("_near.html", finding=finding, **found)
    return page(request, "near.html", here="/shelf", finding=finding, **found)


def _near(service: Service, finding: Finding, image: bytes | None) -> dict[str, Any]:
    if image is None and not finding.q:
        raise Unusable("there is nothing to look for: give words, a picture, or both")
    now = service.snapshot()
    where = replace(finding, q="").whole(now, kinds_of(now))
    try:
        query = Query(image=image, text=finding.q or None, k=NEAR, where=where)
        found = service.similar(query).neighbours
    except EmptyShelf:
        found = []
    pictures = Links(now.view.by_rows([n.row for n in found]).values())
    return {
        "near": [neighbour(n.as_dict(), pictures) for n in found], "picture": image is not None,
        "shelf": footer(now, service.shelf.path.name),
    }  # fmt: skip
