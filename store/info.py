"""Figures of `info`, and a user's own SQL."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.db.labels import spellings
from kinshelf.store.results import Rows

if TYPE_CHECKING:
    from kinshelf.db.catalog.sql import Table
    from kinshelf.db.catalog.tables import Catalog
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot
    from kinshelf.store.log.ledger import Ledger


def facts(shelf: AnyShelf, now: AnySnapshot, index: dict[str, Any]) -> dict[str, Any]:
    """The figures of one generation, with those of what searches it."""
    manifest = shelf.manifest
    rejects = Counter(r["reason"] for r in now.view.rejects())
    return {
        "shelf": shelf.name,
        "generation": now.generation,
        **now.view.totals(),
        "encoder": manifest.encoder,
        "revision": manifest.revision,
        "fingerprint": now.fingerprint,
        "dimension": shelf.dimension,
        "format": manifest.format,
        "index": index,
        "categories": {k or "(none)": n for k, n in now.view.categories().items()},
        "category_spellings": spellings(now.view.categories()),
        "rejects": dict(rejects.most_common()),
        "probes": now.view.probes(),
    }


def history(shelf: AnyShelf, limit: int | None) -> Rows:
    """See `Shelf.history`."""
    found = shelf.snapshot().view.commits(limit)
    oldest = shelf.manifest.base_generation
    return Rows({**commit, "kept": commit["generation"] >= oldest} for commit in found)


def run_sql(directory: Path, ledger: Ledger, query: str) -> Table:
    """See `Shelf.sql`; it works on a copy of the catalogue, locked down, of its own."""
    from kinshelf.db.catalog.sql import check_select, lock_down, run_select
    from kinshelf.store.log import catalog_cache

    def load() -> Catalog:
        catalog = catalog_cache.load_catalog(directory, ledger)
        catalog_cache.catch_up(catalog, ledger)
        return catalog

    statement = check_select(query)
    catalog = ledger.settled(load)
    catalog.connection.execute("DELETE FROM products WHERE removed IS NOT NULL")
    lock_down(catalog.connection)
    return run_select(catalog.connection, statement)
