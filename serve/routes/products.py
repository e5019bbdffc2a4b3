"""Products: add, look at, change, remove, list."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from kinshelf.db.errors import InputError, UnknownCategory
from kinshelf.serve.base.schemas import MAX_FACETS, Changes, NewProduct
from kinshelf.serve.http.answers import Added, Json, Listed, Removed, Shown, answers, fails
from kinshelf.serve.http.requests import Served, body_of, read_body
from kinshelf.serve.http.security import reader, writer
from kinshelf.serve.service.product_input import changes_of, product_of
from kinshelf.serve.service.service import Service
from kinshelf.store.similar.listing import products

router = APIRouter(tags=["products"])
_EXAMPLE = {
    "id": "toy-1", "title": "Wooden train, 12 pieces", "category": "Toys & Games | Vehicles",
    "price": 19.9, "attributes": {"pieces": 12},
}  # fmt: skip
_READ, _WRITE = [Depends(reader)], [Depends(writer)]
_ADDED = answers(Added, 409, 423)
_ADDED["responses"][201] = {"model": Added, "description": "A new product."}


@router.get("/products", dependencies=_READ, **answers(Listed))
async def list_products(
    service: Served,
    where: Annotated[str | None, Query(max_length=4000)] = None,
    search: Annotated[str | None, Query(max_length=1000, examples=["bear -brown"])] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**40)] = 0,
    facets: Annotated[str, Query(max_length=1000, examples=["category,brand"])] = "",
) -> Response:
    """Products in the order in which they were added, or those that have all words of `search`, the
    best first; each as in `kinshelf list --json`."""
    columns = [name for each in facets.split(",") if (name := each.strip())][:MAX_FACETS]

    def work() -> dict[str, Any]:
        found = products(
            service.snapshot(), where, search=search, limit=limit, offset=offset, facets=columns
        )
        listed = [stored.as_dict() for stored in found.products]
        return {
            "products": listed, "total": found.total, "generation": found.generation,
            "facets": found.facets,
        }  # fmt: skip

    return Json(await service.run(work))


@router.post(
    "/products", dependencies=_WRITE, **_ADDED, openapi_extra=body_of(NewProduct, _EXAMPLE)
)
async def add(request: Request, service: Served) -> Response:
    """Add a product, or replace it by id, fields that are not given included (PATCH changes some);
    as `kinshelf add --json`. Answered once it is durable."""
    body, data = await read_body(request, NewProduct)
    report = await service.run(_add, service, body, data)
    return Json(report, 201 if report["inserted"] else 200)


def _add(service: Service, body: NewProduct, data: bytes | None) -> dict[str, Any]:
    product = product_of(body, service.pictures, data)
    report = service.add([product])
    if report.rejected:
        raise InputError(next(iter(report.examples.values())))
    return report.as_dict()


@router.get("/products/{product_id:path}", dependencies=_READ, **answers(Shown, 404))
async def show(product_id: str, service: Served) -> Response:
    """All that the shelf knows of a product; as `kinshelf show --json`."""
    return Json((await service.run(service.product, product_id)).as_dict())


@router.patch(
    "/products/{product_id:path}", dependencies=_WRITE, **answers(Shown, 404, 409, 423),
    openapi_extra=body_of(Changes, {"category": "Toys & Games | Puzzles"}),
)  # fmt: skip
async def change(product_id: str, request: Request, service: Served) -> Response:
    """Change the fields that are given; null empties one. Answered once it is durable.

    A category that no product has yet is refused (409), and those that look like it are named in
    `near`, unless `new_category` is true.
    """
    body, data = await read_body(request, Changes)

    def work() -> dict[str, Any]:
        old = service.product(product_id).product
        changes = changes_of(body, old, service.pictures, data)
        is_new = body.new_category
        try:
            return service.amend(product_id, changes, new_category=is_new).as_dict()
        except UnknownCategory as error:
            remedy = f'{error}: send `"new_category": true` with it to make the category'
            raise UnknownCategory(remedy, error.near) from None

    return Json(await service.run(work))


@router.delete("/products/{product_id:path}", dependencies=_WRITE, **answers(Removed, 404, 423))
async def remove(product_id: str, service: Served) -> Response:
    """Remove a product; as `kinshelf remove --json`. Answered once it is durable."""
    removed = await service.run(service.remove, [product_id])
    return Json({"removed": removed, "generation": service.shelf.generation})


@router.get(
    "/thumbnails/{product_id:path}", dependencies=_READ, response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **fails(404)},
)  # fmt: skip
async def thumbnail(
    product_id: str, service: Served, side: Annotated[int, Query(ge=16, le=1024)] = 160
) -> Response:
    """A product's picture, decoded and drawn anew, as a JPEG."""
    data = await service.run(service.thumbnail, product_id, side)
    headers = {"Cache-Control": "private, max-age=60", "Accept-Ranges": "none"}
    return Response(data, media_type="image/jpeg", headers=headers)
