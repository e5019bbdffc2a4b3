"""The catalogue, which can be rebuilt from the truth: loaded, caught up and saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.db.catalog.statement import seal, side_file
from kinshelf.db.catalog.tables import Catalog, Change, on_disk
from kinshelf.db.errors import GenerationNotFound
from kinshelf.store.log import disk

if TYPE_CHECKING:
    from kinshelf.store.log.ledger import Ledger

CATALOG = "catalog.duckdb"
STALE_SHARE, STALE_FRAMES = 0.05, 32
"""A snapshot this far behind is replaced; below it, replaying costs less than writing."""
_APPLIED_ROWS = 1 << 12
"""Parsed at once: eight times as many are no faster and take 60 MB more."""


def load_catalog(directory: Path, ledger: Ledger) -> Catalog:
    """The catalogue's snapshot, or an empty one that `catch_up` fills from the log."""
    return Catalog.load(directory / CATALOG, _fitting(ledger)) or base_catalog(ledger)


def _fitting(ledger: Ledger) -> Callable[[dict[str, Any]], bool]:
    return lambda state: state.get("anchor") == anchor(ledger, state["generation"])


def base_catalog(ledger: Ledger, path: Path | None = None) -> Catalog:
    """A catalogue of the oldest state that the log keeps; `catch_up` applies what followed."""
    catalog = Catalog(ledger.manifest.base_generation, path)
    for entry in ledger.base:
        catalog.apply_base(ledger.frame(entry).content())
    return catalog


def check_kept(ledger: Ledger, generation: int) -> None:
    """Raises GenerationNotFound for a generation that can not be asked any more, or not yet."""
    oldest = ledger.manifest.base_generation
    if not oldest <= generation <= ledger.generation:
        raise GenerationNotFound(
            f"generation {generation} is not kept: {ledger.directory} has generations {oldest} to"
            f" {ledger.generation}, see `kinshelf history`"
        )


def anchor(ledger: Ledger, generation: int) -> str | None:
    """The mark of a snapshot that belongs to this log's generation; None: no such generation.

    The number alone does not tell: a shelf restored from a backup gives its numbers again.
    """
    place = generation - ledger.manifest.base_generation
    if not 0 <= place <= len(ledger.heads):
        return None
    frames = ledger.heads[:place][-1:] or ledger.base[-1:]
    times = [f"{frame.end}-{frame.head['time']}" for frame in frames]
    return "-".join([str(ledger.manifest.epoch), *times])


def save_catalog(directory: Path, ledger: Ledger, catalog: Catalog) -> None:
    """Replace the catalogue's snapshot if it is far enough behind to be worth it.

    It becomes that of the newest generation read, even if the handle's own copy is older.
    """
    saved = catalog.saved_generation
    if saved is not None and not _stale(ledger, saved):
        return
    path = directory / CATALOG
    temporary = path.with_name(f".{CATALOG}.tmp")
    for leftover in (temporary, temporary.with_name(temporary.name + ".wal")):
        disk.unlink(leftover)
    current = catalog.generation == ledger.generation
    with on_disk(temporary):
        state = catalog.save(temporary) if current else _extended(path, temporary, ledger)
    state |= {"anchor": anchor(ledger, state["generation"])}
    disk.discard(side_file(path))  # a crash in between leaves no statement, not a wrong one
    disk.sync_file(temporary)
    disk.rename(temporary, path)
    disk.replace(side_file(path), seal(state))
    catalog.saved_generation = state["generation"]


def _extended(path: Path, temporary: Path, ledger: Ledger) -> dict[str, Any]:
    """The snapshot and what came after it, on disk: a long `add` need not have all in memory."""
    extended = Catalog.begin(path, temporary, _fitting(ledger)) or base_catalog(ledger, temporary)
    try:
        catch_up(extended, ledger)
        return extended.finish(temporary)
    finally:
        extended.close()


def _stale(ledger: Ledger, generation: int) -> bool:
    new_rows = ledger.rows - ledger.rows_at(generation)
    many = new_rows > STALE_SHARE * (ledger.rows - ledger.first_row)
    return many or ledger.generation - generation >= STALE_FRAMES


def catch_up(catalog: Catalog, ledger: Ledger) -> None:
    """Apply every committed change that the catalogue lacks, many in one transaction."""
    lacking = ledger.heads[catalog.generation - ledger.manifest.base_generation :]
    changes: list[Change] = []
    rows = 0
    for frame in ledger.bodies(lacking):
        changes.append((frame.generation, frame.head, frame.content()))
        rows += frame.head.get("rows", 0)
        if rows > _APPLIED_ROWS:
            catalog.apply_all(changes)
            changes, rows = [], 0
    if changes:
        catalog.apply_all(changes)
