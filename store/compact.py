"""`compact`: give back the space of what no kept generation needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinshelf.db.errors import InputError
from kinshelf.store.layout import log_path, vectors_path
from kinshelf.store.ledger import Ledger
from kinshelf.store.rewrite import Rewriting, Source


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction did. `oldest` is the oldest generation that can still be asked.

    `rows_kept` and `rows_dropped` count stored rows, those of older generations included;
    bytes are those of log and vectors.
    """

    generation: int
    oldest: int
    epoch: int
    rows_kept: int
    rows_dropped: int
    bytes_before: int
    bytes_after: int

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
