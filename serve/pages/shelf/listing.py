"""The shelf's page: found by words, facets or a condition, as a grid of pictures or as a list."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from kinshelf.db.catalog.listing import list_products
from kinshelf.db.errors import FilterError
from kinshelf.probe.pages.card import thumbnail
from kinshelf.serve.http.security import reader
from kinshelf.serve.pages.files import Links
from kinshelf.serve.pages.filtering import column_names, footer, problem_of
from kinshelf.serve.pages.notices import operation_notice
from kinshelf.serve.pages.query import FORM_BYTES
from kinshelf.serve.pages.rendering import PageRoute, page, part
from kinshelf.serve.pages.shelf.finding import SIZES, VIEWS, Finding, asked, kinds_of
from kinshelf.serve.pages.shelf.sidebar import (
    Facetted,
    Leaves,
    chips,
    panel,
    panels,
    search_categories,
    titled,
    tree,
)

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.serve.service.service import Service
    from kinshelf.store.generation import AnySnapshot

router = APIRouter(route_class=PageRoute, dependencies=[Depends(reader)])

Found = Annotated[Finding, Depends(asked)]
Done = Annotated[int | None, Query(ge=0, le=2**53)]
NAMES = 300
"""Categories that the page holds for whoever types one; more are asked for as they are typed."""
_SIDES = {"grid": 320, "large": 480, "list": 160}
_SORTS = (
    ("", "as they came"), ("-added", "newest first"), ("title", "title, A to Z"),
    ("price", "price, lowest first"), ("-price", "price, highest first"), ("category", "category"),
    ("brand", "brand"),
)  # fmt: skip
_LISTED = ("category", "price", "brand", "id", "split", "description")


@router.get("/shelf")
async def shelf(
    request: Request,
    finding: Found,
    find: Annotated[str, Query(max_length=300)] = "",
    done: Done = None,
) -> Response:
    """Products, a page at a time."""
    service, facetted = request.app.state.service, request.app.state.facetted
    found = await service.run(_listed, service, facetted, finding, find.strip())
    notice = await service.run(operation_notice, service, done, found["finding"].path())
    status = 422 if found["problem"] else 200
    return page(request, "shelf.html", here="/shelf", status=status, notice=notice, **found)


@router.get("/shelf/categories")
async def categories(
    request: Request, finding: Found, find: Annotated[str, Query(max_length=300)] = ""
) -> Response:
    """The categories that hold some words, for the sidebar."""
    service, facetted = request.app.state.service, request.app.state.facetted

    def search() -> list[dict[str, Any]]:
        found = facetted.count(service.snapshot(), finding).facets["category"]
        return search_categories(finding, found, find) if find.strip() else []

    return part("_categories.html", matches=await service.run(search), find=find.strip())


@router.get("/shelf/facet")
async def facet(
    request: Request, finding: Found, name: Annotated[str, Query(max_length=300)]
) -> Response:
    """The values of one facet, counted when it is opened."""
    service, facetted = request.app.state.service, request.app.state.facetted
    asked_for = replace(finding, facets=(name,))

    def count() -> dict[str, Any]:
        found = facetted.count(service.snapshot(), asked_for)
        return panel(finding, found.facets[name])

    return part("_facet.html", p=await service.run(count), finding=finding)


@router.get("/shelf/names")
async def names(request: Request, category: Annotated[str, Query(max_length=300)] = "") -> Response:
    """The categories that somebody who types may mean, as options."""
    service, facetted = request.app.state.service, request.app.state.facetted
    found = await service.run(lambda: facetted.leaves(service.snapshot()).like(category))
    return part("_options.html", names=found)


def _listed(service: Service, facetted: Facetted, finding: Finding, find: str) -> dict[str, Any]:
    now = service.snapshot()
    shown = {
        "finding": finding, "problem": None, "find": find, "matches": [], "products": [],
        "panels": [], "tree": None, "total": 0, "pages": 1, "views": VIEWS, "sizes": SIZES,
        "near": finding.link().replace("/shelf", "/shelf/near", 1),
        "most": service.settings.max_body - FORM_BYTES,
        "chips": chips(finding), "columns": column_names(now), "sorts": _sorts(finding),
        "shelf": footer(now, service.shelf.path.name),
    }  # fmt: skip
    try:
        return shown | _found(now, facetted, finding, find)
    except FilterError as error:
        return shown | {"problem": problem_of(finding.where, str(error))}


def _found(now: AnySnapshot, facetted: Facetted, finding: Finding, find: str) -> dict[str, Any]:
    facets = facetted.count(now, finding)
    category = facets.facets["category"]
    pages = max(-(-facets.total // finding.size), 1)
    finding = replace(finding, page=min(finding.page, pages))
    products = list_products(
        now.view, now.filter(finding.whole(now, kinds_of(now))), sort=finding.sort,
        limit=finding.size, offset=(finding.page - 1) * finding.size,
    )  # fmt: skip
    leaves, good = facetted.leaves(now), facetted.names(now)
    listed = {*facets.facets, *good, *_PLAIN}
    return {
        "finding": finding, "total": facets.total, "pages": pages,
        "panels": panels(finding, facets, good), "tree": tree(finding, category),
        "matches": search_categories(finding, category, find) if find else [],
        "products": _shown(products, finding, leaves),
        "others": [name for name in kinds_of(now) if name not in listed],
        "listable": [(name, titled(name)) for name in (*_LISTED, *now.view.attribute_types())],
        "categories": leaves.names if len(leaves.names) <= NAMES else None,
    }  # fmt: skip


_PLAIN = ("id", "title", "description", "image", "row", "has_text")


def _sorts(finding: Finding) -> list[tuple[str, str]]:
    """The orders to choose from, with that of the address."""
    listed = dict(_SORTS)
    if finding.sort not in listed:
        name = finding.sort.removeprefix("-")
        down = ", largest first" if finding.sort.startswith("-") else ""
        listed[finding.sort] = f"{titled(name)}{down}"
    return list(listed.items())


def _shown(products: list[StoredProduct], finding: Finding, leaves: Leaves) -> list[dict[str, Any]]:
    pictures = Links(products, _SIDES[finding.view])
    columns = finding.columns if finding.view == "list" else ()
    return [
        {
            "id": p.id, "title": p.title, "category": p.category, "price": p.price,
            "leaf": leaves.short(p.category), "guessed": stored.origin("category") == "predicted",
            "shown": thumbnail(p.image, pictures),
            "cells": [_cell(stored, name, leaves) for name in columns],
        }
        for stored in products for p in [stored.product]
    ]  # fmt: skip


def _cell(stored: StoredProduct, name: str, leaves: Leaves) -> str:
    product = stored.product
    if name == "category":
        return leaves.short(product.category)
    value = getattr(product, name) if name in _LISTED else product.attributes.get(name)
    if isinstance(value, float):
        return f"{value:,.2f}"
    return "" if value is None else str(value)
