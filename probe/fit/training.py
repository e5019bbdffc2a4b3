"""Fitting a probe: early stopping finds how long to train, then all rows train for as long."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kinshelf.db.arrays import FloatArray
from kinshelf.probe.fit.data import LabelledData
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.network import device_of, repeatable
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.split import TrainingSet, training_set
from kinshelf.probe.fit.start import check_start
from kinshelf.probe.fit.whitening import too_few

if TYPE_CHECKING:
    import torch

    from kinshelf.probe.fit.trainer import Trainer


REFIT_LONGER = 4 / 3
"""How much longer than the best epoch all rows train.

Patience on a small held-out part tends to stop too soon. On CLIP embeddings of 828 products (30
folds and seeds) 4/3 lowered the loss on held-out products from 0.113 to 0.110 and the error from
0.040 to 0.037; more than 3/2 gained nothing, nor was it worse with 15 % wrong labels.
"""

FEW = 5
"""Products below which a category is warned about."""

FEW_COPIES = 0.05
"""Share of copies from which there is a warning."""

MOST = 0.9
"""Share of the products in one category above which that is warned about."""


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One line of the training log; losses are mean cross-entropies in nats.

    `stage` is `fit` while early stopping looks for the best epoch, `refit` while all rows train
    for `REFIT_LONGER` times as many. The `val_` figures are of the held-out rows; None where
    there are none.
    """

    stage: str
    epoch: int
    train_loss: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float
    lr: float


OnEpoch = Callable[[EpochResult], None]
MakeTrainer = Callable[..., "Trainer"]


@dataclass(frozen=True, slots=True)
class Trained:
    """A probe and the log of its training."""

    probe: Probe
    log: tuple[EpochResult, ...]


def train_probe(
    data: LabelledData, settings: ProbeSettings | None = None, on_epoch: OnEpoch | None = None
) -> Trained:
    """Train on the categorised rows outside the splits `val` and `test`.

    The same data, settings and machine give the same weights, bit for bit; torch's global random
    state is left as it was. `on_epoch` is called after each epoch. Raises TooFewClasses,
    InvalidSetting (device) and ProbeError (the loss diverged).
    """
    group = settings.group if settings else None
    return fit_probe(training_set(data, group), settings, on_epoch)


def fit_probe(
    source: TrainingSet,
    settings: ProbeSettings | None = None,
    on_epoch: OnEpoch | None = None,
    start: Probe | None = None,
    make: MakeTrainer | None = None,
) -> Trained:
    """Train on the rows of `source`, some of which decide when to stop. See `train_probe`.

    `start` is a probe whose weights the training starts from; it may have seen the rows that
    decide when to stop. `make` makes another trainer than `probe.trainer.Trainer`. Raises
    InvalidSetting if `start` does not fit the settings or the rows.
    """
    settings = settings or ProbeSettings()
    source = source.with_basis(settings.seed)
    if start is not None:
        dimension = source.data.fused(source.rows[:1]).shape[1]
        check_start(start, settings, dimension)
    # two or three rows would stop the training at random
    fraction = 0.0 if too_few(source) else settings.val_fraction
    held = source.hold_out(fraction, settings.seed)
    run = _Run(settings, device_of(settings), on_epoch or (lambda _: None), start, make)
    best = run.search(source.take(~held), source.take(held))
    refit = bool(held.any()) and len(source) < settings.refit_below
    probe = Probe(
        classes=source.classes,
        weights=run.repeat(source, best) if refit else best.weights,
        settings=settings,
        trained_rows=len(source) if refit else int((~held).sum()),
        generation=source.data.generation,
        fingerprint=source.data.fingerprint,
        metrics=_metrics(best, held_out_rows=int(held.sum()), refit=refit, groups=source.n_groups),
        warnings=warnings_of(source, stops_early=bool(held.any())),
    )
    return Trained(probe, tuple(run.log))


@dataclass(frozen=True, slots=True)
class _Best:
    """The epoch to keep."""

    result: EpochResult
    weights: dict[str, FloatArray]


@dataclass(frozen=True, slots=True)
class _Run:
    settings: ProbeSettings
    device: torch.device
    on_epoch: OnEpoch
    start: Probe | None = None
    make: MakeTrainer | None = None
    log: list[EpochResult] = field(default_factory=list)

    def search(self, train: TrainingSet, held: TrainingSet) -> _Best:
        """Train until the held-out loss has not fallen for `patience` epochs; keep the best.

        With nothing held out all epochs are run, and the last is kept.
        """
        best: _Best | None = None
        with repeatable(self.settings.seed, self.device):
            trainer = self._trainer(train)
            for epoch in range(1, self.settings.epochs + 1):
                result = self._epoch("fit", epoch, trainer, held)
                if result.val_loss is None and epoch < self.settings.epochs:
                    continue
                if best is None or _improves(result, best.result):
                    best = _Best(result, trainer.weights)
                elif epoch - best.result.epoch >= self.settings.patience:
                    break
        assert best is not None, "settings allow no fewer than one epoch"
        return best

    def repeat(self, source: TrainingSet, best: _Best) -> dict[str, FloatArray]:
        """The weights after training afresh on all rows, for somewhat more epochs than best."""
        with repeatable(self.settings.seed, self.device):
            trainer = self._trainer(source)
            longer = round(REFIT_LONGER * best.result.epoch)
            for epoch in range(1, min(longer, self.settings.epochs) + 1):
                self._epoch("refit", epoch, trainer, None)
            return trainer.weights

    def _trainer(self, source: TrainingSet) -> Trainer:
        from kinshelf.probe.fit.trainer import Trainer

        return (self.make or Trainer)(source, self.settings, self.device, self.start)

    def _epoch(
        self, stage: str, epoch: int, trainer: Trainer, held: TrainingSet | None
    ) -> EpochResult:
        start = time.perf_counter()
        train_loss = trainer.train_epoch()
        loss, accuracy = trainer.evaluate(held) if held else (None, None)
        seconds = time.perf_counter() - start
        result = EpochResult(stage, epoch, train_loss, loss, accuracy, seconds, self.settings.lr)
        self.log.append(result)
        self.on_epoch(result)
        return result


def _improves(result: EpochResult, best: EpochResult) -> bool:
    if result.val_loss is None or best.val_loss is None:
        return True
    return result.val_loss < best.val_loss


def _metrics(best: _Best, *, held_out_rows: int, refit: bool, groups: int) -> dict[str, object]:
    return {
        "best_epoch": best.result.epoch,
        "train_loss": best.result.train_loss,
        "val_loss": best.result.val_loss,
        "val_accuracy": best.result.val_accuracy,
        "held_out_rows": held_out_rows,
        "refit": refit,
        "groups": groups,
    }


def warnings_of(source: TrainingSet, *, stops_early: bool) -> tuple[str, ...]:
    """Warnings on the rows that a probe is trained from."""
    found = []
    single = [name for name, n in source.counts.items() if n == 1]
    if single:
        shown = ", ".join(repr(name) for name in single[:3]) + (", ..." if len(single) > 3 else "")
        found.append(
            f"{len(single)} of {len(source.classes)} categories have a single product that trains"
            f" ({shown}): their probabilities are guesses; add products to them, or merge them by"
            " `kinshelf relabel`"
        )
    found += [*_copied(source), *_skewed(source)]
    if not stops_early:
        found.append(
            "no products were held out, as no category has one to spare: training ran all its"
            " epochs, not until the best; add products, or give fewer --epochs"
        )
    return tuple(found)


def _copied(source: TrainingSet) -> list[str]:
    """Copies in number: what is measured rests on fewer products than there are rows."""
    groups = source.n_groups
    if groups > (1 - FEW_COPIES) * len(source):
        return []
    return [
        f"{len(source) - groups} of {len(source)} products that train are copies of others, or in"
        f" one group with them: accuracy, calibration and policy count {groups}. `kinshelf audit`"
        " lists the copies"
    ]


def _skewed(source: TrainingSet) -> list[str]:
    counts = source.counts
    few = sum(1 < n < FEW for n in counts.values())
    largest = max(counts, key=counts.__getitem__)
    share = counts[largest] / len(source)
    found = []
    if few:
        found.append(
            f"{few} of {len(counts)} categories have fewer than {FEW} products that train: expect"
            " mistakes among these; add products to them, or merge them by `kinshelf relabel`"
        )
    if share > MOST:
        found.append(
            f"{share:.0%} of the products that train are in one category ({largest!r}): accuracy"
            " means little then; `kinshelf evaluate` shows macro F1 and the recall of the others"
        )
    return found
