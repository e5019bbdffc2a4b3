"""What can be rebuilt from the truth: the catalogue and the index, loaded, caught up and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.db.catalog import Catalog, side_file
from kinshelf.store import files
from kinshelf.store.index import FlatIndex
from kinshelf.store.layout import index_path

if TYPE_CHECKING:
    from kinshelf.store.ledger import Ledger

CATALOG = "catalog.duckdb"
STALE_SHARE, STALE_FRAMES = 0.05, 32
"""A snapshot this far behind is replaced; below it, replaying costs less than writing."""


def load_catalog(directory: Path, ledger: Ledger) -> Catalog:
    """The catalogue's snapshot, or an empty one that `catch_up` fills from the log."""
    path = directory / CATALOG
    found = Catalog.load(path, ledger.manifest.epoch, ledger.generation)
    return found or Catalog(ledger.manifest.base_generation)


def save_catalog(directory: Path, ledger: Ledger, catalog: Catalog) -> None:
    """Replace the catalogue's snapshot if it is far enough behind to be worth it."""
    saved = catalog.saved_generation
    if saved is not None and not _stale(ledger, saved):
        return
    path = directory / CATALOG
    temporary = path.with_name(f".{CATALOG}.tmp")
    files.unlink(temporary)
    state = catalog.save(temporary, ledger.manifest.epoch)
    files.rename(temporary, path)
    files.replace(side_file(path), json.dumps(state).encode())
    catalog.saved_generation = catalog.generation


def _stale(ledger: Ledger, generation: int) -> bool:
    new_rows = ledger.rows - ledger.rows_at(generation)
    many = new_rows > STALE_SHARE * (ledger.rows - ledger.first_row)
    return many or ledger.generation - generation >= STALE_FRAMES


def save_index(directory: Path, ledger: Ledger, index: FlatIndex) -> None:
    """Replace the index's snapshot if it is far enough behind to be worth it."""
    if len(index) - index.saved_rows > STALE_SHARE * len(index):
        index.save(index_path(directory, ledger.manifest.epoch), ledger.manifest.epoch)


def catch_up(
    catalog: Catalog, ledger: Ledger, bodies: dict[int, dict[str, Any]] | None = None
) -> None:
    """Apply every committed change that the catalogue lacks; `bodies` are those at hand."""
    base = ledger.manifest.base_generation
    for entry in ledger.heads[catalog.generation - base :]:
        body = (bodies or {}).get(entry.generation)
        if body is None:
            body = ledger.frame(entry).content()
        catalog.apply(entry.generation, entry.head, body)


def load_index(directory: Path, ledger: Ledger) -> FlatIndex:
    """The index's snapshot, or an empty one."""
    epoch = ledger.manifest.epoch
    rows = ledger.rows - ledger.first_row
    path = index_path(directory, epoch)
    return FlatIndex.load(path, epoch, ledger.width, rows) or FlatIndex(ledger.width)


