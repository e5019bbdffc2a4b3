"""Products that match, listed: by a filter, by words, with facets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinshelf.db.errors import InputError
from kinshelf.store.similar.keywords import found

if TYPE_CHECKING:
    from kinshelf.db.catalog.facets import FacetList
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.generation import AnySnapshot


@dataclass(frozen=True, slots=True)
class Listed:
    """Some products of those that match, the number of these and their facets."""

    products: list[StoredProduct]
    total: int
    generation: int
    facets: dict[str, FacetList]


def products(
    now: AnySnapshot,
    where: str | None = None,
    *,
    search: str | None = None,
    stem: str | None = None,
    limit: int | None = None,
    offset: int = 0,
    facets: Sequence[str] = (),
) -> Listed:
    """Products that match a filter, in the order in which they were added, or those that have all
    words of a search, the best first. Raises FilterError or InputError."""
    if search is None:
        if stem is not None:
            raise InputError(f"stem is {stem!r} without a search: it is for words")
        total = now.view.count(now.filter(where))
        listed = now.select(where, limit=limit, offset=offset)
        return Listed(listed, total, now.generation, now.facets(facets, where))
    rows = found(now, search, where=where, stem=stem)
    page = rows[offset : None if limit is None else offset + limit]
    known = now.view.by_rows(page)
    listed = [known[row] for row in page.tolist()]
    return Listed(listed, len(rows), now.generation, now.facets(facets, rows=rows))
