"""Products a page at a time, in an order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinshelf.db.catalog.queries import FILTER_COLUMNS
from kinshelf.db.filters.literals import TEXT
from kinshelf.db.filters.names import Names

if TYPE_CHECKING:
    from kinshelf.db.catalog.queries import Tabled
    from kinshelf.db.filters.compiler import Filter
    from kinshelf.db.product import StoredProduct


def list_products(
    view: Tabled, where: Filter | None = None, *, sort: str = "", limit: int, offset: int = 0
) -> list[StoredProduct]:
    """The products that match, `limit` of them from the `offset`-th on.

    sort: a column or attribute; with a minus before it, from the largest; "": in the order that
    they came. Texts are sorted regardless of case, and products without a value come last.

    Raises FilterError for a name that there is not.
    """
    if not sort:
        return view.select(where, limit=limit, offset=offset)
    known = Names(FILTER_COLUMNS, view.attribute_types())
    name = known.find(sort.removeprefix("-"))
    column = f"lower({name.sql})" if name.kind == TEXT else name.sql
    down = "DESC" if sort.startswith("-") else "ASC"
    with view.tabled(where) as table:
        visible, parameters = table._visible(where)
        query = (
            f"SELECT row FROM products p WHERE {visible}"
            f" ORDER BY {column} {down} NULLS LAST, row LIMIT ? OFFSET ?"
        )
        values = [*parameters, *name.parameters, limit, offset]
        rows = [row for (row,) in table._run(query, values).fetchall()]
    found = view.by_rows(rows)
    return [found[row] for row in rows]
