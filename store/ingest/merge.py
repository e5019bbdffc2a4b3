"""What becomes of a product that the shelf has: what its source states over what stands there.

A field that the source does not bring stays. A value that a person decided outlives a source that
states what it stated then; if the source states something else since, the value stays too, and the
product is disputed: it goes to review. A value that a probe predicted gives way to any that the
source states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinshelf.db.layouts.names import FIELDS
from kinshelf.db.product import GONE, PREDICTED, Product
from kinshelf.db.text import compatible

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kinshelf.db.product import Decisions, StoredProduct
    from kinshelf.db.sources.columns import RowFields

REVIEW = "review"
"""In the place of a field: that a person looked at the product and left it as it is."""
_ATTRIBUTE = "attributes."
_GONE = _ATTRIBUTE + GONE
_SHOWN = ("title", "description", "image", "category")
"""What a person looked at; where one of them changes, the product may be reviewed again."""


def merged(
    old: StoredProduct, new: Product, row_fields: RowFields | None
) -> tuple[Product, Decisions, list[str]]:
    """The product to keep, what of it a person decided, and the fields that were not changed
    because of that.

    `row_fields` names the fields that the source has, None: all.
    """
    values, stated, decided = flat(old.product), flat(new), dict(old.decided)
    kept = []
    for name in _names(values, stated, row_fields):
        value, decision = stated.get(name), decided.get(name)
        if decision and PREDICTED in decision and value is not None:
            del decided[name]
            values[name] = value
        elif decision is None:
            values[name] = value
        elif _same(value, values.get(name)):
            if "disputed" in decision:
                decided[name] = {"source": value}
        else:
            kept.append(name)
            if not _same(value, decision["source"]):
                decided[name] = {"source": value, "disputed": True}
    if values.get(_GONE) is True and not stated.get(_GONE):
        values[_GONE] = None  # its source has it again
    product = of_values(old.product.id, values)
    disputed = any("disputed" in decision for decision in decided.values())
    if disputed or any(getattr(product, name) != getattr(old.product, name) for name in _SHOWN):
        decided.pop(REVIEW, None)
    return product, decided, kept


def decide(old: StoredProduct, new: Product, confirmed: Collection[str] | None = None) -> Decisions:
    """What of a product a person decided, who now gives it the values of `new`.

    A value that its source states too is no decision; one that was disputed is settled. One that a
    probe predicted is a person's from now on where it is among the fields `confirmed`, None: all.
    """
    values, wanted, decided = flat(old.product), flat(new), dict(old.decided)
    decided.pop(REVIEW, None)
    for name in values | wanted:
        before = decided.get(name)
        same = before is not None and PREDICTED in before and wanted.get(name) == values.get(name)
        if same and confirmed is not None and name not in confirmed:
            continue
        decided.pop(name, None)
        source = values.get(name) if before is None else before["source"]
        if wanted.get(name) != source:
            decided[name] = {"source": source}
    return decided


def predict(old: StoredProduct, receipt: Mapping[str, Any]) -> Decisions:
    """What is decided of a product whose category a probe predicts; `receipt`: by what."""
    before = old.decided.get("category")
    source = old.product.category if before is None else before["source"]
    return dict(old.decided) | {"category": {"source": source, PREDICTED: dict(receipt)}}


def changed_fields(old: Product, new: Product) -> list[str]:
    """The names of the fields that differ; an attribute's begins with "attributes."."""
    before, after = flat(old), flat(new)
    return [name for name in before | after if before.get(name) != after.get(name)]


def _same(one: Any, other: Any) -> bool:
    """Whether two values are one, in whichever spelling of Unicode: older shelves keep NFKC."""
    texts = isinstance(one, str) and isinstance(other, str)
    return one == other or (texts and compatible(one) == compatible(other))


def _names(
    values: dict[str, Any], stated: dict[str, Any], row_fields: RowFields | None
) -> list[str]:
    names = list(FIELDS[1:] if row_fields is None else row_fields.fields)
    if row_fields is None or row_fields.attributes is None:
        return names + [name for name in values | stated if name.startswith(_ATTRIBUTE)]
    return names + [_ATTRIBUTE + name for name in row_fields.attributes]


def flat(product: Product) -> dict[str, Any]:
    """Its fields but the id, by name; an attribute's name begins with "attributes."."""
    fields = {name: getattr(product, name) for name in FIELDS[1:]}
    return fields | {_ATTRIBUTE + name: value for name, value in product.attributes.items()}


def of_values(product_id: str, values: Mapping[str, Any]) -> Product:
    """The product of such values: the reverse of `flat`."""
    attributes = {
        name.removeprefix(_ATTRIBUTE): value
        for name, value in values.items()
        if name.startswith(_ATTRIBUTE) and value is not None
    }
    fields: dict[str, Any] = {name: values[name] for name in FIELDS[1:]}
    return Product(id=product_id, **fields, attributes=attributes)
