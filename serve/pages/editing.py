"""One product changed in place, or added from an answer of the first page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xxhash
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from kinshelf.db.errors import DuplicateId, InputError, ShelfLocked, UnknownCategory
from kinshelf.db.sources.values import typed
from kinshelf.serve.base.errors import Unusable, for_people, message_of
from kinshelf.serve.base.prefix import under
from kinshelf.serve.base.schemas import NewProduct, ProductFields, Text
from kinshelf.serve.http.forms import read_form
from kinshelf.serve.http.requests import checked, read_body
from kinshelf.serve.http.security import writer
from kinshelf.serve.pages.notices import locked_page
from kinshelf.serve.pages.rendering import PageRoute, address, page, see
from kinshelf.serve.service.product_input import changes_of, product_of
from kinshelf.store.ingest.categories import check_category

if TYPE_CHECKING:
    from kinshelf.serve.service.service import Service

router = APIRouter(route_class=PageRoute, dependencies=[Depends(writer)])

FIELDS = ("title", "description", "category", "price", "brand", "split")
ATTRIBUTE = "attribute."
"""Before an attribute's name in the form."""
_URLENCODED = "application/x-www-form-urlencoded"


@router.post("/product/edit")
async def edit(request: Request) -> Response:
    """Give a product the fields of a form; those that are as they were are left alone."""
    service = request.app.state.service
    fields, _ = await read_form(request, _URLENCODED, request.app.state.settings.max_text)
    place = address("/product", id=fields.get("id", ""))
    try:
        generation = await service.run(_edit, service, fields)
    except UnknownCategory as error:
        return _which(request, error, fields, place)
    except ShelfLocked as error:
        return locked_page(request, error, "/product/edit", fields.items())
    return see(request, f"{place}&done={generation}")


def _edit(service: Service, fields: dict[str, str]) -> int:
    stored = service.product(fields.get("id", ""))
    if str(stored.row) != fields.get("row"):
        raise InputError(f"{stored.product.id!r} was changed meanwhile: look again")
    old = stored.product
    given: dict[str, Any] = {name: fields.get(name) for name in FIELDS}
    given["price"] = _price(fields.get("price", ""))
    given["attributes"] = {
        name: value if text == str(value) else typed(text)
        for name, value in old.attributes.items()
        for text in [fields.get(f"{ATTRIBUTE}{name}", "")]
    }
    asked = checked(ProductFields, given)
    changes = changes_of(asked, old, service.pictures, None)
    changes = {name: value for name, value in changes.items() if value != getattr(old, name)}
    if changes:
        service.amend(old.id, changes, new_category="new" in fields)
    return service.shelf.generation


def _price(text: str) -> float | None:
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise InputError(f"the price {text[:60]!r} is no number: write one such as 9.99") from None


class _New(BaseModel):
    text: Text = ""
    where: Text = ""
    id: Text = ""
    category: Text = ""
    new: Text = ""


@router.post("/ask/add")
async def add(request: Request) -> Response:
    """Put what was asked about on the shelf, with the category that a person gives it."""
    service = request.app.state.service
    given, data = await read_body(request, _New, form_only=True)
    try:
        name, generation = await service.run(_add, service, given, data)
    except ShelfLocked as error:
        return locked_page(request, error, "/ask/add", given.model_dump().items())
    return see(request, address("/product", id=name, done=generation))


def _add(service: Service, given: _New, data: bytes | None) -> tuple[str, int]:
    text = given.text.strip()
    if not text and not data:
        raise Unusable("there is nothing to add: give a picture, a title, or both")
    title, _, description = text.partition("\n")
    digest = xxhash.xxh3_64_hexdigest((data or b"") + text.encode())
    asked = checked(NewProduct, {
        "id": given.id.strip() or f"new-{digest[:10]}", "title": title.strip(),
        "description": description.strip(), "category": given.category.strip() or None,
    })  # fmt: skip
    if asked.id in service.snapshot().view.by_ids([asked.id]):
        raise DuplicateId(f"the shelf has a product {asked.id!r} already: choose another id")
    product = product_of(asked, service.pictures, data or None)
    if product.category and not given.new:
        _check(service, product.category)
    report = service.add([product])
    if report.rejected:
        raise InputError(next(iter(report.examples.values())))
    return product.id, service.shelf.generation


def _check(service: Service, category: str) -> None:
    """As `check_category`, for a form whose picture a question could not hold."""
    try:
        check_category(service.shelf, category)
    except UnknownCategory as error:
        message = f"{error}: choose another one, or tick “a new category”"
        raise InputError(message) from None


def _which(request: Request, error: UnknownCategory, fields: dict[str, str], back: str) -> Response:
    """Ask whether a category that no product has is meant."""
    answers = [(near, (fields | {"category": near}).items()) for near in error.near]
    typed_one = fields["category"]
    answers.append((f"Create “{typed_one}”", (fields | {"new": "1"}).items()))
    return page(
        request, "question.html", here="/shelf", status=409, heading="A new category?",
        words=for_people(message_of(error)), answers=answers, back=under(back),
        action="/product/edit",
    )  # fmt: skip
