"""The shelf: filtered and paged, one product with what resembles it, several side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from kinshelf.db.errors import EmptyShelf, FilterError
from kinshelf.probe.pages.card import neighbour, thumbnail
from kinshelf.serve.base.prefix import under
from kinshelf.serve.http.security import reader
from kinshelf.serve.pages.files import Links
from kinshelf.serve.pages.filtering import (
    category_rows,
    column_names,
    footer,
    known_categories,
    problem_of,
)
from kinshelf.serve.pages.notices import generation_notice
from kinshelf.serve.pages.rendering import PageRoute, address, page
from kinshelf.store.ingest import queries as ingest_queries
from kinshelf.store.similar.listing import Listed, products

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.serve.service.service import Service
    from kinshelf.store.generation import AnySnapshot

router = APIRouter(route_class=PageRoute, dependencies=[Depends(reader)])

Generation = Annotated[int | None, Query(ge=0, le=2**53)]
PER_PAGE = 36
SIMILAR = 12
COMPARED = 4
_CHIPS = 12
_FACTS = ("price", "brand", "split")
_COMPARED = ("category", *_FACTS, "description")


@router.get("/shelf")
async def shelf(
    request: Request,
    where: Annotated[str, Query(max_length=20_000)] = "",
    search: Annotated[str, Query(max_length=1000)] = "",
    number: Annotated[int, Query(alias="page", ge=1, le=10_000_000)] = 1,
) -> Response:
    """Products, a page at a time."""
    service = request.app.state.service
    asked = {"where": where.strip(), "search": search.strip()}
    found = await service.run(_listed, service, asked, number)
    return page(
        request, "shelf.html", here="/shelf", status=422 if found["problem"] else 200, **found,
        link=lambda wanted: address(under("/shelf"), **asked, page=wanted),
    )  # fmt: skip


def _listed(service: Service, asked: dict[str, str], number: int) -> dict[str, Any]:
    now = service.snapshot()
    found: list[StoredProduct] = []
    total, pages, problem = 0, 1, None
    try:
        listed = _page(now, asked, number)
        total, found = listed.total, listed.products
        pages = max(-(-total // PER_PAGE), 1)
        if number > pages:
            number = pages
            found = _page(now, asked, number).products
    except FilterError as error:
        problem = problem_of(asked["where"], str(error))
    pictures = Links(found)
    return {
        **asked, "problem": problem, "total": total, "page": number, "pages": pages,
        "products": [_values(one, pictures) for one in found],
        "categories": category_rows(now.view.categories(), _CHIPS),
        "columns": column_names(now), "shelf": footer(now, service.shelf.path.name),
    }  # fmt: skip


def _page(now: AnySnapshot, asked: dict[str, str], number: int) -> Listed:
    return products(
        now, asked["where"] or None, search=asked["search"] or None, limit=PER_PAGE,
        offset=(number - 1) * PER_PAGE,
    )  # fmt: skip


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
    found["notice"] = await service.run(
        generation_notice, service, done, address("/product", id=product_id)
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
        "p": stored.product, "shown": thumbnail(stored.product.image, Links([stored], 480)),
        "facts": _facts(stored), "near": near, "where": where, "problem": problem,
        "weight": f"{weight:g}", "categories": known_categories(now),
        "columns": column_names(now), "shelf": footer(now, service.shelf.path.name),
    }  # fmt: skip


def _facts(stored: StoredProduct) -> list[tuple[str, Any]]:
    given = {name: getattr(stored.product, name) for name in _FACTS} | stored.product.attributes
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
