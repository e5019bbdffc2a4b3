"""From a request's fields to a product, cleaned as those of a file are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinshelf.db.layouts.names import attribute_name
from kinshelf.db.product import Product
from kinshelf.db.sources.values import scalars
from kinshelf.db.text import clean, clean_category, clean_key, clean_split
from kinshelf.serve.base.errors import Unusable

if TYPE_CHECKING:
    from kinshelf.serve.base.schemas import NewProduct, ProductFields
    from kinshelf.serve.service.pictures import Pictures


def product_of(asked: NewProduct, pictures: Pictures, data: bytes | None) -> Product:
    """The product to add; its picture is checked and kept. Raises Unusable or ImageRejected."""
    name = clean_key(asked.id)
    if not name:
        raise Unusable(f"the id {asked.id!r} is empty once cleaned: name the product")
    product = Product(name).replace(**_cleaned(asked))
    if not product.text and asked.image is None and data is None:
        raise Unusable("a product needs a title, a description or an image")
    return product.replace(image=_image(asked, pictures, data))


def changes_of(
    asked: ProductFields, old: Product, pictures: Pictures, data: bytes | None
) -> dict[str, Any]:
    """Fields of `Product` to change; attributes are merged, null takes one away."""
    given = asked.model_fields_set
    changes = {name: value for name, value in _cleaned(asked).items() if name in given}
    if "attributes" in changes and asked.attributes is not None:
        merged = old.attributes | changes["attributes"]
        gone = {attribute_name(name) for name, value in asked.attributes.items() if value is None}
        changes["attributes"] = {n: v for n, v in merged.items() if n not in gone}
    pictured = data is not None or (old.image if "image" not in given else asked.image) is not None
    if not pictured and not old.replace(**changes).text:
        raise Unusable("a product needs a title, a description or an image")
    if data is not None or "image" in given:
        changes["image"] = _image(asked, pictures, data)
    return changes


def _image(asked: ProductFields, pictures: Pictures, data: bytes | None) -> str | None:
    if data is not None:
        return pictures.keep_upload(data)
    return None if asked.image is None else pictures.keep_url(asked.image)


def _cleaned(asked: ProductFields) -> dict[str, Any]:
    return {
        "title": clean(asked.title or ""),
        "description": clean(asked.description or ""),
        "category": clean_category(asked.category or ""),
        "price": asked.price,
        "brand": clean(asked.brand or "") or None,
        "split": clean_split(asked.split or "")[0],
        "attributes": scalars(asked.attributes or {}),
    }
