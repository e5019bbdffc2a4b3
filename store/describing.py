"""What a shelf says of itself: the figures of `info`, and a user's own SQL."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinshelf.db.catalog import Catalog
    from kinshelf.db.sql import Table
    from kinshelf.store.handle import AnyShelf
    from kinshelf.store.interface import AnySnapshot
    from kinshelf.store.ledger import Ledger
    from kinshelf.store.shelf import Shelf


def info(shelf: Shelf, at: int | None = None, *, recall: bool = False) -> dict[str, Any]:
    """See `Shelf.info`."""
    now = shelf.snapshot(at)
    index = shelf._index.told(now.searched().vectors)
    if recall and now.count:
        from kinshelf.store.tuning import measured

        index["measured"] = measured(now.searched()).as_dict()
    return facts(shelf, now, index)


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
        "rejects": dict(rejects.most_common()),
        "probes": now.view.probes(),
    }


def history(shelf: Shelf, limit: int | None) -> list[dict[str, Any]]:
    """See `Shelf.history`."""
    found = shelf.snapshot().view.commits(limit)
    oldest = shelf.manifest.base_generation
    return [commit | {"kept": commit["generation"] >= oldest} for commit in found]


def run_sql(directory: Path, ledger: Ledger, query: str) -> Table:
    """See `Shelf.sql`; it works on a copy of the catalogue, locked down, of its own."""
    from kinshelf.db.sql import check_select, lock_down, run_select
    from kinshelf.store import derived

    def load() -> Catalog:
        catalog = derived.load_catalog(directory, ledger)
        derived.catch_up(catalog, ledger)
        return catalog

    statement = check_select(query)
    catalog = ledger.settled(load)
    catalog.connection.execute("DELETE FROM products WHERE removed IS NOT NULL")
    lock_down(catalog.connection)
    return run_select(catalog.connection, statement)
