"""`compact`: give back the space of what no kept generation needs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.errors import InputError
from kinshelf.db.images.cache import ImageCache
from kinshelf.store.engines.shelf import EngineShelf
from kinshelf.store.ingest.picture_vectors import PictureVectors
from kinshelf.store.log.layout import log_path, vectors_path
from kinshelf.store.log.ledger import Ledger
from kinshelf.store.maintain.rewrite import Rewriting, Source
from kinshelf.store.results import CompactReport
from kinshelf.store.shelf import DirectoryShelf

if TYPE_CHECKING:
    from kinshelf.db.catalog.queries import View
    from kinshelf.store.base import AnyShelf

_GRACE = 3600.0
"""Seconds that a picture is left alone: it is fetched or sent before its product is added."""


def compact(shelf: AnyShelf, keep: int = 1) -> CompactReport:
    """Give back the space of all but the newest `keep` generations; see `kinshelf.face.Shelf`."""
    if keep < 1:
        raise InputError(
            f"--keep {keep}: at least the newest generation must be kept, so 1 or more"
        )
    with shelf.writing():
        if isinstance(shelf, EngineShelf):
            return shelf.drop_superseded(keep)
        assert isinstance(shelf, DirectoryShelf)
        report = shelf.replace_truth(lambda ledger: _rewrite(ledger, keep))
        view = shelf.snapshot().view
        count, size = drop_pictures(shelf.path, view)
        PictureVectors(shelf.path, shelf.manifest).keep(view.pictures()[1])
    return replace(report, images_dropped=count, image_bytes_dropped=size)


def _rewrite(ledger: Ledger, keep: int) -> CompactReport:
    """Rewrite the truth so that it holds the newest `keep` generations and nothing older.

    Readers go on: those that have the old epoch open keep its files until they next look.
    """
    oldest = max(ledger.manifest.base_generation, ledger.generation - keep + 1)
    generation, epoch = ledger.generation, ledger.manifest.epoch + 1
    rows, size = ledger.rows - ledger.first_row, _size(ledger.directory, epoch - 1)
    rewriting = Rewriting(_source(ledger), oldest)
    ledger.begin_epoch(lambda: rewriting.write(epoch))
    kept, left = rewriting.count, _size(ledger.directory, epoch)
    return CompactReport(generation, oldest, epoch, kept, rows - kept, size, left)


def drop_pictures(path: Path, view: View) -> tuple[int, int]:
    """Delete cached pictures of the shelf at `path` that no product of a kept generation has.

    Not those that lie elsewhere: other shelves may have them too. Returns how many, their bytes.
    """
    images = path / "images"
    if images.is_symlink() or not images.is_dir():
        return 0, 0
    return ImageCache(images).drop_unused(*view.pictures(), time.time() - _GRACE)


def _source(ledger: Ledger) -> Source:
    vectors = ledger.vectors(ledger.rows)
    return Source(
        directory=ledger.directory,
        manifest=ledger.manifest,
        frames=[*ledger.base, *ledger.heads],
        next_row=ledger.rows,
        read=lambda frame: ledger.frame(frame).content(),
        gather=lambda places: np.array(vectors[places], dtype=np.float32),
    )


def _size(directory: Path, epoch: int) -> int:
    return sum(path(directory, epoch).stat().st_size for path in (log_path, vectors_path))
