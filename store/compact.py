"""`compact`: give back the space of what no kept generation needs."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.errors import InputError
from kinshelf.db.image_cache import ImageCache
from kinshelf.store.layout import log_path, vectors_path
from kinshelf.store.ledger import Ledger
from kinshelf.store.rewrite import Rewriting, Source

if TYPE_CHECKING:
    from kinshelf.db.queries import View

_GRACE = 3600.0
"""Seconds that a picture is left alone: it is fetched or sent before its product is added."""


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction did. `oldest` is the oldest generation that can still be asked.

    `rows_kept` and `rows_dropped` count stored rows, those of older generations included;
    bytes are those of log and vectors. `images_dropped` of the cache had no product any more.
    """

    generation: int
    oldest: int
    epoch: int
    rows_kept: int
    rows_dropped: int
    bytes_before: int
    bytes_after: int
    images_dropped: int = 0
    image_bytes_dropped: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def compact(ledger: Ledger, keep: int) -> CompactReport:
    """Rewrite the truth so that it holds the newest `keep` generations and nothing older.

    The caller holds the writer lock. Readers go on: those that have the old epoch open keep its
    files until they next look. Raises InputError or ShelfError.
    """
    if keep < 1:
        raise InputError(
            f"--keep {keep}: at least the newest generation must be kept, so 1 or more"
        )
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
