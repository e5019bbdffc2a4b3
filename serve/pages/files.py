"""Files that a page loads: its own, and thumbnails of products, by id and never by path."""

from __future__ import annotations

import threading
from collections import OrderedDict
from html import escape
from typing import TYPE_CHECKING, Annotated

import xxhash
from fastapi import APIRouter, Depends, Query, Request, Response

from kinshelf.db.errors import ImageRejected, KinshelfError
from kinshelf.db.product import pictures_of
from kinshelf.serve.base.errors import status_of
from kinshelf.serve.base.prefix import under
from kinshelf.serve.http.conditions import settled
from kinshelf.serve.http.security import reader
from kinshelf.serve.pages.rendering import address, static_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kinshelf.db.product import StoredProduct
    from kinshelf.serve.service.service import Service

router = APIRouter()

KEPT = 2048
"""Thumbnails kept in memory, some 5 to 30 KB each."""
LARGEST_KEPT = 480

_FOREVER = "private, max-age=31536000, immutable"


@router.get("/static/{name}")
async def static_file(request: Request, name: str) -> Response:
    """A style, a script or a symbol."""
    if name not in static_files():
        return Response("There is no such file.", 404)
    data, kind, version = static_files()[name]
    current = request.query_params.get("v") == version
    headers = {"ETag": f'"{version}"', "Cache-Control": _FOREVER if current else "no-cache"}
    return settled(request, headers) or Response(data, media_type=kind, headers=headers)


class _Thumbnails:
    """The newest, by what the picture holds and how large it is shown."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, service: Service, stored: StoredProduct, side: int, number: int = 0) -> bytes:
        """That of a product's main picture, `number` 0, or a further one. Raises ImageRejected."""
        tag = _tag(stored, side, number)
        with self._lock:
            if tag is not None and tag in self._made:
                self._made.move_to_end(tag)
                return self._made[tag]
        # not by id: the product may have another picture by now, and `tag` is kept for good
        pictures = pictures_of(stored.product) if number else [stored.product.image]
        name = pictures[number] if number < len(pictures) else None
        made = service.pictures.thumbnail(name, side)
        with self._lock:
            if tag is not None and side <= LARGEST_KEPT:
                self._made[tag] = made
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
        return made


def _tag(stored: StoredProduct, side: int, number: int) -> str | None:
    """None where the shelf does not know what the picture's file holds."""
    hashes = stored.picture_hashes
    return f"{hashes[number]}-{side}" if number < len(hashes) and hashes[number] else None


@router.get("/thumbnail", dependencies=[Depends(reader)])
async def thumbnail(
    request: Request,
    product_id: Annotated[str, Query(alias="id")],
    side: Annotated[int, Query(ge=160, le=1600, multiple_of=160)] = 160,
    version: Annotated[str, Query(alias="v")] = "",
    number: Annotated[int, Query(alias="n", ge=0)] = 0,
) -> Response:
    """A small JPEG of a product's picture; a placeholder that states the reason where there is
    none."""
    service = request.app.state.service
    try:
        stored = await service.run(service.product, product_id)
        etag = _tag(stored, side, number)
        known = etag and settled(request, _cached(etag, version))
        if known:
            return known
        data = await service.run(_kept(request).get, service, stored, side, number)
    except ImageRejected as error:
        return _drawing(f"picture {error.reason.replace('-', ' ')}", 404)
    except KinshelfError as error:
        return _drawing("no picture", status_of(error)[0])
    headers = _cached(etag or xxhash.xxh3_64_hexdigest(data), version)
    return settled(request, headers) or Response(data, media_type="image/jpeg", headers=headers)


def _kept(request: Request) -> _Thumbnails:
    state = request.app.state
    if not hasattr(state, "thumbnails"):
        state.thumbnails = _Thumbnails()
    found: _Thumbnails = state.thumbnails
    return found


def _cached(etag: str, version: str) -> dict[str, str]:
    control = _FOREVER if version and etag.startswith(version) else "private, no-cache"
    return {"ETag": f'"{etag}"', "Cache-Control": control, "Accept-Ranges": "none"}


def _drawing(words: str, status: int) -> Response:
    text = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 160" width="160" height="160">'
        '<rect width="160" height="160" fill="#eef0f4"/><text x="80" y="84" font-size="13"'
        ' font-family="sans-serif" fill="#4d5560" text-anchor="middle">'
        f"{escape(words)}</text></svg>"
    )
    return Response(text, status, {"Cache-Control": "no-store"}, "image/svg+xml")


class Links:
    """Thumbnails' addresses for the pictures of some products, as templates ask for them."""

    def __init__(self, products: Iterable[StoredProduct], side: int = 160) -> None:
        self._side = side
        self._by_image: dict[str | None, StoredProduct] = {
            s.product.image: s for s in products if s.product.image
        }

    def uri(self, image: str | None) -> str | None:
        """An address by id, or None."""
        stored = self._by_image.get(image)
        if stored is None or stored.image_error:
            return None
        side = None if self._side == 160 else self._side
        return address(
            under("/thumbnail"), id=stored.product.id, side=side, v=(stored.image_hash or "")[:12]
        )

    def further(self, stored: StoredProduct) -> list[str]:
        """The addresses of a product's pictures behind the main one."""
        hashes = [*stored.picture_hashes, *[""] * len(pictures_of(stored.product))]
        return [
            address(under("/thumbnail"), id=stored.product.id, n=number, v=hashes[number][:12])
            for number in range(1, len(pictures_of(stored.product)))
        ]

    def problem(self, image: str | None) -> str:
        """Why there is none."""
        stored = self._by_image.get(image)
        if stored is None:
            return "no picture"
        return f"picture {stored.image_error.replace('-', ' ')}" if stored.image_error else ""
