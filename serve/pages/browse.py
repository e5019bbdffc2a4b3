"""One product with what resembles it, and several side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from kinshelf.db.errors import EmptyShelf, FilterError
from kinshelf.db.product import pictures_of
from kinshelf.probe.pages.card import neighbour, thumbnail
from kinshelf.serve.http.security import reader
from kinshelf.serve.pages.editing import FIELDS
from kinshelf.serve.pages.files import Links
from kinshelf.serve.pages.filtering import (
    column_names,
    footer,
    known_categories,
    problem_of,
)
from kinshelf.serve.pages.notices import generation_notice, operation_notice
from kinshelf.serve.pages.rendering import PageRoute, address, page
from kinshelf.store.ingest import queries as ingest_queries
from kinshelf.store.operations.diff import changes_of

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.serve.service.service import Service
    from kinshelf.store.generation import AnySnapshot

router = APIRouter(route_class=PageRoute, dependencies=[Depends(reader)])

Generation = Annotated[int | None, Query(ge=0, le=2**53)]
FULL = 1600
SIMILAR = 12
COMPARED = 4
_FACTS = ("price", "brand", "split")
_DERIVED = ("image_hash", "has_image", "has_text")
_COMPARED = ("category", *_FACTS, "description")


def _values(stored: StoredProduct, pictures: Links) -> dict[str, Any]:
    product = stored.product
    names = ("id", "title", "category", "price", "description")
    values = {name: getattr(product, name) for name in names}
    return values | {"shown": thumbnail(product.image, pictures)}


@router.get("/product")
async def product(
    request: Request,
    product_id: Annotated[str, Query(alias="id")],
    where: Annotated[str, Query(max_length=20_000)] = "",
    weight_image: Annotated[float, Query(ge=0, le=1)] = 0.5,
    done: Generation = None,
) -> Response:
    """A product, all that is known of it, and what resembles it."""
    service = request.app.state.service
    found = await service.run(_product, service, product_id, where.strip(), weight_image)
    place = address("/product", id=product_id)
    found["notice"] = await service.run(
        lambda: generation_notice(service, done, place) or operation_notice(service, done, place)
    )
    return page(request, "product.html", here="/shelf", **found)


def _product(service: Service, product_id: str, where: str, weight: float) -> dict[str, Any]:
    now = service.snapshot()
    stored = now.get(product_id)
    near, problem = [], None
    try:
        near = _similar(now, stored, where, weight)
    except FilterError as error:
        problem = problem_of(where, str(error))
    return {
        "p": stored.product, "row": stored.row, "full": full_picture(stored),
        "fields": [(name, _field(stored, name)) for name in FIELDS],
        "attributes": list(stored.product.attributes.items()),
        "changes": [_change(row) for row in changes_of(service.shelf, product_id)],
        "shown": thumbnail(stored.product.image, Links([stored], 480)),
        "further": Links([stored]).further(stored),
        "facts": _facts(stored), "near": near, "where": where, "problem": problem,
        "weight": f"{weight:g}", "categories": known_categories(now),
        "columns": column_names(now), "shelf": footer(now, service.shelf.path.name),
    }  # fmt: skip


def full_picture(stored: StoredProduct) -> str | None:
    """The address of the picture as large as it is shown anywhere."""
    return Links([stored], FULL).uri(stored.product.image)


def _field(stored: StoredProduct, name: str) -> Any:
    value = getattr(stored.product, name)
    return "" if value is None else value


def _change(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the product's history: the fields without the origins and embeddings."""
    fields = [
        (name.removeprefix("attributes."), before, after)
        for name, (before, after) in row["fields"].items()
        if not name.startswith("origin.") and name not in _DERIVED
    ]
    return row | {"fields": fields, "time": row.get("time"), "who": row.get("who")}


def _facts(stored: StoredProduct) -> list[tuple[str, Any]]:
    given = {name: getattr(stored.product, name) for name in _FACTS} | stored.product.attributes
    if len(pictures_of(stored.product)) > 1:
        given["images"] = None
    given |= {"added in generation": stored.added, "picture": stored.image_error or None}
    return [(name, value) for name, value in given.items() if value not in (None, "")]


def _similar(
    now: AnySnapshot, stored: StoredProduct, where: str, weight: float
) -> list[dict[str, Any]]:
    queries = now.pairs([stored.row])
    found = now.kneighbors(
        queries, SIMILAR, where=where or None, exclude=[stored.row], weight_image=weight
    )
    near = ingest_queries.neighbours(now, found)[0]
    pictures = Links(now.view.by_rows([n.row for n in near]).values())
    return [neighbour(n.as_dict(), pictures) for n in near]


@router.get("/compare")
async def compare(
    request: Request, ids: Annotated[list[str] | None, Query(alias="id")] = None
) -> Response:
    """Two to four products side by side."""
    service = request.app.state.service
    wanted = list(dict.fromkeys(ids or []))[:COMPARED]
    found = await service.run(_compared, service, wanted)
    return page(request, "compare.html", here="/shelf", **found)


def _compared(service: Service, ids: list[str]) -> dict[str, Any]:
    now = service.snapshot()
    goods = [now.get(one) for one in ids]
    near = _to_first(now, goods) if len(goods) > 1 else {}
    pictures = Links(goods)
    shown = [_values(one, pictures) | {"near": near.get(one.row)} for one in goods]
    rows = _rows(goods)
    return {"goods": shown, "rows": rows, "shelf": footer(now, service.shelf.path.name)}


def _to_first(now: AnySnapshot, goods: list[StoredProduct]) -> dict[int, Any]:
    """Similarity of each of the others to the first, by row."""
    import numpy as np

    others = np.array(sorted(one.row for one in goods[1:]), dtype=np.int64)
    try:
        found = now.kneighbors(now.pairs([goods[0].row]), len(others), among=others)
    except EmptyShelf:
        return {}
    return {n.row: n for n in ingest_queries.neighbours(now, found)[0]}


def _rows(goods: list[StoredProduct]) -> list[dict[str, Any]]:
    names = [*_COMPARED, *dict.fromkeys(n for one in goods for n in one.product.attributes)]
    rows = []
    for name in names:
        cells = [_cell(one, name) for one in goods]
        if any(cell not in (None, "") for cell in cells):
            rows.append({"name": name, "cells": cells, "differs": len(set(map(str, cells))) > 1})
    return rows


def _cell(stored: StoredProduct, name: str) -> Any:
    if name in _COMPARED:
        return getattr(stored.product, name) or None
    return stored.product.attributes.get(name)
