"""`verify`: every layer against its checksum, and what is derived against the truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.errors import ShelfDamaged
from kinshelf.db.image_cache import ImageCache
from kinshelf.store import fusion
from kinshelf.store.probes import damaged_files, list_probes
from kinshelf.store.report import Finding
from kinshelf.store.shelf import Shelf

if TYPE_CHECKING:
    from kinshelf.store.snapshot import Snapshot

_BLOCK = 1 << 14


def verify(shelf: Shelf) -> list[Finding]:
    """What is wrong with an open shelf; opening it has checked manifest, log and vectors.

    Raises ShelfDamaged where the truth itself cannot be read.
    """
    now = shelf.snapshot()
    return [*_catalogue(now), *_vectors(now), *_probes(shelf, now), *_images(shelf)]


def _catalogue(now: Snapshot) -> Iterator[Finding]:
    rows = now.view.rows()
    ids = now.view.select()
    remedy = "delete catalog.duckdb: it is rebuilt from the log at the next opening"
    if len(rows) != now.count:
        problem = f"it lists {len(rows)} products, the log {now.count}"
        yield Finding("catalog.duckdb", problem, remedy)
    if len({p.product.id for p in ids}) != len(ids):
        yield Finding("catalog.duckdb", "an id stands in it twice", remedy)


def _vectors(now: Snapshot) -> Iterator[Finding]:
    for stored in _blocks(now):
        halves = fusion.split(now.halves([p[0] for p in stored]))
        for half, name, given in zip(halves, ("image", "text"), (1, 2), strict=True):
            norms = np.linalg.norm(half.astype(np.float64), axis=1)
            expected = np.array([float(p[given]) for p in stored])
            for at in np.flatnonzero(~(np.abs(norms - expected) < 1e-3)):
                problem = f"row {stored[at][0]}: the {name} half has norm {norms[at]:.4f}"
                yield Finding("vectors", problem, "remove the product and add it again")


def _blocks(now: Snapshot) -> Iterator[list[tuple[int, bool, bool]]]:
    rows = now.view.rows()
    for start in range(0, len(rows), _BLOCK):
        found = now.view.by_rows(rows[start : start + _BLOCK])
        yield [(row, p.has_image, p.has_text) for row, p in sorted(found.items())]


def _probes(shelf: Shelf, now: Snapshot) -> Iterator[Finding]:
    for probe in list_probes(shelf, now):
        for name in damaged_files(probe):
            where = f"probes/{probe.path.name}/{name}"
            yield Finding(where, "missing or damaged", "train again with `kinshelf train`")


def _images(shelf: Shelf) -> Iterator[Finding]:
    cache = shelf.path / "images"
    if cache.is_dir():
        for path, problem in ImageCache(cache).verify():
            yield Finding(str(path), problem, "delete the file: it is fetched again when needed")


def verify_path(path: Path) -> tuple[list[Finding], int]:
    """Findings of the shelf at `path`, and its generation; damaged truth is a finding too."""
    try:
        with Shelf.open(path) as shelf:
            return verify(shelf), shelf.generation
    except ShelfDamaged as error:
        return [Finding(str(path), str(error), "restore the shelf from a backup")], -1
