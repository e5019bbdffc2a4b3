"""Probe and shelf together: train from its vectors, evaluate on products held out."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.errors import InputError
from kinshelf.probe.files import export_checkpoint, write_probe
from kinshelf.probe.settings import ProbeSettings
from kinshelf.probe.training import OnEpoch, train_probe
from kinshelf.store.probes import save_probe

if TYPE_CHECKING:
    from kinshelf.store import Shelf

FOLDS = 5
Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What `train` made."""

    version: int
    generation: int
    classes: tuple[str, ...]
    trained_rows: int
    seconds: float
    metrics: dict[str, Any]
    warnings: tuple[str, ...]
    checkpoint: str | None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def train_shelf(
    shelf: Shelf,
    settings: ProbeSettings | None = None,
    *,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
) -> TrainReport:
    """Train a probe from the shelf's newest generation and store it as its newest probe.

    Raises TooFewClasses, InvalidSetting, ShelfLocked, or InputError for a checkpoint that has no
    folder to go to.
    """
    if checkpoint is not None and not checkpoint.parent.is_dir():
        raise InputError(
            f"there is no folder {checkpoint.parent} for the checkpoint: make it first"
        )
    started = time.monotonic()
    trained = train_probe(shelf.snapshot(), settings, on_epoch)
    probe = trained.probe
    version = save_probe(
        shelf,
        lambda directory: write_probe(directory, probe, trained.log),
        trained_on=probe.trained_rows,
        classes=len(probe.classes),
        metrics=dict(probe.metrics),
    )
    if checkpoint is not None:
        export_checkpoint(probe, checkpoint)
    return TrainReport(
        version=version,
        generation=shelf.generation,
        classes=probe.classes,
        trained_rows=probe.trained_rows,
        seconds=time.monotonic() - started,
        metrics=dict(probe.metrics),
        warnings=probe.warnings,
        checkpoint=str(checkpoint) if checkpoint else None,
    )
