"""Train and calibrate a probe from a shelf, and store it there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import InputError, ProbeError, ShelfError
from kinshelf.probe.calibrate.calibrate import calibrate
from kinshelf.probe.calibrate.crossfit import OnPart
from kinshelf.probe.fit.data import LabelledData
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.split import training_set
from kinshelf.probe.fit.storage import export_checkpoint, read_probe, write_probe
from kinshelf.probe.fit.training import OnEpoch, Trained, fit_probe
from kinshelf.store.probes import find_probe, save_probe

if TYPE_CHECKING:
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot

Fit = Callable[..., Trained]


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The result of `train`; `warm_start` is the probe that it started from, if any."""

    version: int
    generation: int
    classes: tuple[str, ...]
    trained_rows: int
    seconds: float
    metrics: dict[str, Any]
    warnings: tuple[str, ...]
    checkpoint: str | None
    calibration: dict[str, Any]
    warm_start: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def train_shelf(
    shelf: AnyShelf,
    settings: ProbeSettings | None = None,
    *,
    on_epoch: OnEpoch | None = None,
    on_part: OnPart = lambda _done, _all: None,
    checkpoint: Path | None = None,
    warm_start: bool = False,
    data: LabelledData | None = None,
    fit: Fit = fit_probe,
) -> TrainReport:
    """Train and calibrate a probe from the shelf's newest generation; it becomes the newest probe.

    `on_epoch` is called after each epoch, `on_part` after each part of the calibration.
    `warm_start`: from the weights of the newest probe, whose hidden layer must be as wide. `data`:
    rows to train and calibrate from in place of the shelf's own, of the same encoder (see
    `cluster.blocks`). `fit` fits the weights as `fit_probe` does. Raises
    TooFewClasses, InvalidSetting, ProbeNotFound, ShelfLocked, or InputError for a checkpoint that
    has no folder to go to or is one.

    >>> report = train_shelf(shelf, ProbeSettings(epochs=1))
    >>> report.version == shelf.info()["probes"][-1]["version"]
    True
    """
    if checkpoint is not None:
        _check_target(checkpoint)
    started = time.monotonic()
    now = shelf.snapshot()
    before = find_probe(shelf, now) if warm_start else None
    settings = settings or ProbeSettings()
    source = training_set(data or now, settings.group).with_basis(settings.seed)
    start = read_probe(before.path) if before else None
    trained = fit(source, settings, on_epoch, start)
    probe = calibrate(source, trained.probe, on_part)
    probe = probe.replace(warnings=(*probe.warnings, *_lost_policy(shelf, now)))
    if before is not None:
        probe = probe.replace(metrics={**probe.metrics, "warm_start": before.version})
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
        calibration=asdict(probe.calibration),
        warm_start=before.version if before else None,
    )


def _check_target(checkpoint: Path) -> None:
    if checkpoint.is_dir():
        raise InputError(f"the checkpoint {checkpoint} is a folder: name a file in it")
    if not checkpoint.parent.is_dir():
        raise InputError(
            f"there is no folder {checkpoint.parent} for the checkpoint: make it first"
        )


def _lost_policy(shelf: AnyShelf, now: AnySnapshot) -> tuple[str, ...]:
    """A warning if the newest probe so far has a policy, which holds for its answers alone."""
    try:
        entry = find_probe(shelf, now)
        policy = read_probe(entry.path).policy
    except (ProbeError, ShelfError):  # none, or it cannot be read: nothing is lost
        return ()
    if policy is None:
        return ()
    return (
        f"the policy of probe {entry.version} does not hold for this one: run `kinshelf policy"
        f" --precision {policy.wanted:g}` again",
    )
