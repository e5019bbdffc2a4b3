"""`verify`: every layer against its checksum, and what is derived against the truth.

The truth is surveyed first (`survey.py`), checksums before contents. What is derived can
only cost time when it is damaged, since nothing is used whose checksum does not match.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.catalog.statement import fault_of, read_state, side_file
from kinshelf.db.catalog.tables import Catalog
from kinshelf.db.errors import ShelfDamaged
from kinshelf.db.images.cache import ImageCache
from kinshelf.store.log import catalog_cache
from kinshelf.store.log.layout import index_path, leftovers
from kinshelf.store.log.ledger import Ledger
from kinshelf.store.log.tip import NAME as TIP
from kinshelf.store.log.tip import read_tip
from kinshelf.store.maintain.survey import Survey
from kinshelf.store.probes import damaged_files, list_probes
from kinshelf.store.results import Finding
from kinshelf.store.search.lifecycle import open_graph
from kinshelf.store.shelf import DirectoryShelf

if TYPE_CHECKING:
    from kinshelf.store.snapshot import Snapshot

TABLES = ("products", "commits", "rejects", "probes", "attributes")
REBUILD = "run `kinshelf verify --repair`; it is not used meanwhile, and loses nothing"
T = TypeVar("T")
_TRIES = 5
"""Beside a writer that does not pause, the last of so many looks counts."""
_NONE = "none needed"
_BLOCK = 4096
_ROUNDED = 0.98
"""Cosine that a row has with itself rounded to bytes; 0.999 and more as measured."""


def verify_path(path: Path) -> tuple[list[Finding], int]:
    """Findings of the shelf at `path`, and the newest generation that can be read.

    Damaged truth is a finding too. Raises ShelfNotFound or UnsupportedFormat.
    """
    return _steady(path, lambda: _verify_path(path), lambda found: found[0])


def _steady(path: Path, verify: Callable[[], T], findings: Callable[[T], list[Finding]]) -> T:
    """What `verify` finds; again where damage is found and files were written or replaced
    meanwhile, as by a compaction, so that an old one was held against a new one."""
    for _ in range(_TRIES):
        before = _stamps(path)
        try:
            found = verify()
        except FileNotFoundError:
            if _stamps(path) == before:
                raise
            continue
        if all(finding.harmless for finding in findings(found)) or _stamps(path) == before:
            return found
    return verify()


def _stamps(path: Path) -> list[tuple[str, int, int, int]]:
    """What tells whether a file of the shelf was written since."""
    found = []
    for file in sorted(path.glob("*")):
        with contextlib.suppress(FileNotFoundError):
            status = file.lstat()
            found.append((file.name, status.st_ino, status.st_mtime_ns, status.st_size))
    return found


def _verify_path(path: Path) -> tuple[list[Finding], int]:
    survey = survey_of(path)
    try:
        with DirectoryShelf(path) as shelf:
            return [*survey.findings, *_derived(shelf), *_beside(shelf)], shelf.generation
    except ShelfDamaged as error:
        found = survey.findings
        if all(finding.harmless for finding in found):
            found = [*found, Finding(path.name, str(error), "open it again, then verify again")]
        return [*found, *_images(path)], survey.readable


def verify(shelf: DirectoryShelf) -> list[Finding]:
    """Verify like `verify_path`, and check the catalogue that this handle has in memory."""

    def once() -> list[Finding]:
        return [*survey_of(shelf.path).findings, *_derived(shelf), *_beside(shelf)]

    return _steady(shelf.path, once, lambda found: found)


def survey_of(path: Path) -> Survey:
    """A survey of one epoch: another one if a compaction took its place meanwhile."""
    while True:
        survey = Survey(path)
        if not survey.damaged or not survey.outdated():
            return survey


def _derived(shelf: DirectoryShelf) -> Iterator[Finding]:
    now = shelf.snapshot()
    ledger = Ledger(shelf.path)
    yield from _catalogue(ledger, now)
    yield from catalogue_file(shelf.path)
    yield from index_file(shelf.path, ledger)


def _beside(shelf: DirectoryShelf) -> Iterator[Finding]:
    yield from _probes(shelf, shelf.snapshot())
    yield from _images(shelf.path)
    yield from _remains(shelf)


# ---- the catalogue


def _catalogue(ledger: Ledger, now: Snapshot) -> Iterator[Finding]:
    fresh = catalog_cache.base_catalog(ledger)
    catalog_cache.catch_up(fresh, ledger)
    try:
        if fresh.generation == now.view.catalog.generation:
            for table in TABLES:
                yield from _differences(table, now.view.catalog, fresh)
        yield from _twice(fresh, ledger)
    finally:
        fresh.close()


def _differences(table: str, catalog: Catalog, fresh: Catalog) -> Iterator[Finding]:
    """Compare a table row by row, all columns; one finding tells the first and the number."""
    different, first = 0, ""
    for ours, right in zip(_rows(catalog, table), _rows(fresh, table), strict=False):
        if ours != right:
            different, first = different + 1, first or f"{ours} instead of {right}"
    counts = [_count(c, table) for c in (catalog, fresh)]
    if counts[0] != counts[1]:
        yield Finding(
            catalog_cache.CATALOG, f"{table}: {counts[0]} rows, the log has {counts[1]}", REBUILD
        )
    elif different:
        problem = f"{table}: {different} rows differ from the log, the first being {first}"
        yield Finding(catalog_cache.CATALOG, problem, REBUILD)


def _count(catalog: Catalog, table: str) -> int:
    row = catalog.connection.cursor().execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0


def _rows(catalog: Catalog, table: str) -> Iterator[tuple[str | None, ...]]:
    query = f"SELECT COLUMNS(*)::VARCHAR FROM {table} ORDER BY ALL"
    cursor = catalog.connection.cursor().execute(query)
    while block := cursor.fetchmany(_BLOCK):
        yield from block


def _twice(fresh: Catalog, ledger: Ledger) -> Iterator[Finding]:
    query = "SELECT id FROM products WHERE removed IS NULL GROUP BY id HAVING count(*) > 1"
    for (name,) in fresh.connection.cursor().execute(query).fetchall():
        problem = f"product {name!r} stands in it twice"
        remedy = "remove the product and add it again"
        yield Finding(f"log-{ledger.manifest.epoch}.wal", problem, remedy)


def catalogue_file(directory: Path) -> Iterator[Finding]:
    """Faults of the catalogue's snapshot on the disk."""
    yield from _snapshot_file(directory / catalog_cache.CATALOG)


def _snapshot_file(path: Path) -> Iterator[Finding]:
    """A snapshot against the checksum in its side file."""
    side = side_file(path)
    if not path.is_file():
        if side.is_file():
            yield Finding(side.name, "its snapshot is missing", _NONE, harmless=True)
    elif not side.is_file():
        yield Finding(path.name, "was not finished, and is not used", _NONE, harmless=True)
    elif (state := read_state(path)) is None:
        yield Finding(side.name, "its checksum does not match", REBUILD)
    elif problem := fault_of(path, state["xxh3"]):
        yield Finding(path.name, problem, REBUILD)


# ---- the index


def index_file(directory: Path, ledger: Ledger) -> Iterator[Finding]:
    """Faults of the index's file: its checksum, then each row against the vectors."""
    path = index_path(directory, ledger.manifest.epoch)
    found = list(_snapshot_file(path))
    yield from found
    if found or not path.is_file():
        return
    vectors = ledger.vectors(ledger.rows)
    graph = open_graph(path, ledger, whole=True)
    if graph is None:
        yield Finding(path.name, "it is of other vectors, and is not used", _NONE, harmless=True)
        return
    for start in range(0, graph.rows, _BLOCK):
        stop = min(start + _BLOCK, graph.rows)
        wrong = ~(_cosines(graph.decoded(start, stop), vectors[start:stop]) > _ROUNDED)
        for at in np.flatnonzero(wrong):
            row = ledger.first_row + start + int(at)
            yield Finding(path.name, f"row {row} differs from the vectors", REBUILD)


def _cosines(held: FloatArray, right: FloatArray) -> FloatArray:
    norms = np.linalg.norm(held, axis=1) * np.linalg.norm(right, axis=1)
    cosines: FloatArray = np.einsum("nd,nd->n", held, right) / np.maximum(norms, 1e-12)
    return cosines


# ---- probes, pictures, remains


def _probes(shelf: DirectoryShelf, now: Snapshot) -> Iterator[Finding]:
    known = list_probes(shelf, now)
    remedy = "train again with `kinshelf train`; `kinshelf verify --repair` sets it aside"
    for probe in known:
        for name in damaged_files(probe):
            yield Finding(f"probes/{probe.path.name}/{name}", "missing or damaged", remedy)
    names = {probe.path.name for probe in known}
    for path in sorted((shelf.path / "probes").glob("[0-9]*")):
        if path.name not in names:
            problem = "a probe of no use: never committed, or of the encoder before `reembed`"
            yield Finding(f"probes/{path.name}", problem, _NONE, harmless=True)


def damaged_images(directory: Path) -> Iterator[tuple[Path, str]]:
    """Files of the image cache that are not what their names say."""
    if (directory / "images").is_dir():
        yield from ImageCache(directory / "images").verify()


def _images(directory: Path) -> Iterator[Finding]:
    for path, problem in damaged_images(directory):
        name = str(path.relative_to(directory))
        remedy = "delete the file: it is fetched again when needed"
        yield Finding(name, problem, remedy, harmless=path.name.startswith("."))


def _remains(shelf: DirectoryShelf) -> Iterator[Finding]:
    for path in leftovers(shelf.path, shelf.manifest.epoch):
        name = str(path.relative_to(shelf.path))
        problem, remedy = "left by an interrupted write", "none needed: the next writer removes it"
        yield Finding(name, problem, remedy, harmless=True)
    if (shelf.path / TIP).is_file() and read_tip(shelf.path) is None:
        yield Finding(TIP, "cannot be read", "none needed: the next change replaces it", True)
