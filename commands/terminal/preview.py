"""A source as it would be added, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group

from kinshelf.commands.terminal.tables import fields_table, plain_heading

if TYPE_CHECKING:
    from kinshelf.db.product import Product
    from kinshelf.db.sources.preview import Preview

_LONGEST, _LISTED = 200, 12


def preview_tables(name: str, found: Preview) -> Group:
    """The fields, the first products, then what is ignored and what to type."""
    tables: list[Any] = [plain_heading(f"{name}: the fields")]
    tables.append(fields_table(found.fields))
    for number, product in enumerate(found.products, start=1):
        tables += ["", plain_heading(f"product {number}"), fields_table(_shown(product))]
    return Group(*tables, "", *map(plain_heading, _lines(found)))


def _shown(product: Product) -> dict[str, Any]:
    """The fields and attributes that have a value, long ones cut."""
    from kinshelf.db.product import TEXT_COLUMNS, pictures_of

    names = (*TEXT_COLUMNS[:4], "price", *TEXT_COLUMNS[4:])
    fields = {name: getattr(product, name) for name in names}
    if len(pictures := pictures_of(product)) > 1:
        fields["image"] = f"{pictures[0]} and {len(pictures) - 1} more"
    hidden = ("images", "description_html")
    fields |= {f"attributes.{n}": v for n, v in product.attributes.items() if n not in hidden}
    return {n: _cut(v) for n, v in fields.items() if v not in (None, "")}


def _cut(value: Any) -> Any:
    return value[:_LONGEST] + "…" if isinstance(value, str) and len(value) > _LONGEST else value


def _lines(found: Preview) -> list[str]:
    lines = []
    if found.ignored:
        more = len(found.ignored) - _LISTED
        tail = f" and {more} more" if more > 0 else ""
        lines.append(f"ignored columns: {', '.join(found.ignored[:_LISTED])}{tail}")
    lines += found.notes
    for reason, count in found.reasons.most_common():
        lines.append(f"  {reason} x {count}, such as: {found.examples[reason]}")
    rows = "all rows" if found.whole else f"the first {found.read:,} rows"
    return [*lines, f"nothing was changed; {rows} were read"]
