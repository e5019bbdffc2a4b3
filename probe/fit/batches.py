"""Batches of training rows, gathered block by block: a shelf's vectors are never held twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.probe.fit.model import INPUT_SCALE
from kinshelf.probe.fit.split import TrainingSet
from kinshelf.probe.fit.whitening import Whitening

if TYPE_CHECKING:
    import torch

BLOCK_ROWS = 4096
"""Rows gathered at once, 16 MB at 1,024 columns: enough that a disk is read in ascending order."""

WHOLE = 200_000
"""Rows up to which an epoch's order is any order; beyond, see `block_order`."""

RUN = 1024
MIXED = 64
"""Runs of so many neighbouring rows are drawn by chance and so many of them mixed: 268 MB at 1,024
columns, which a system without memory for all rows still reads in one piece."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Embedding pairs, whitened if asked for, and class codes of a training set, `size` rows at a
    time."""

    source: TrainingSet
    size: int
    device: torch.device
    whitening: Whitening | None = None

    def shuffled(
        self, rng: np.random.Generator, modality_dropout: float
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each row once in a fresh order; some with one modality hidden, as `rng` will have it."""
        n = len(self.source)
        order = block_order(n, rng) if n > WHOLE else rng.permutation(n).astype(np.int64)
        for block in self._blocks(order):
            X = self._gather(block)
            hide_modality(X, modality_dropout, rng)
            yield from self._tensors(X, block)

    def in_order(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each row once, as it is."""
        for block in self._blocks(np.arange(len(self.source), dtype=np.int64)):
            yield from self._tensors(self._gather(block), block)

    def _blocks(self, order: IntArray) -> Iterator[IntArray]:
        step = max(BLOCK_ROWS // self.size, 1) * self.size
        for start in range(0, len(order), step):
            yield order[start : start + step]

    def _gather(self, places: IntArray) -> FloatArray:
        ascending = np.argsort(places)
        found = self.source.data.fused(self.source.rows[places[ascending]])
        X = np.empty_like(found)
        X[ascending] = found
        return np.multiply(X, np.float32(INPUT_SCALE), out=X)

    def _tensors(
        self, X: FloatArray, places: IntArray
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield from self._pieces(self._inputs(X), places)

    def _inputs(self, X: FloatArray) -> torch.Tensor:
        import torch

        inputs = torch.from_numpy(X).to(self.device)
        return inputs if self.whitening is None else self.whitening.apply(inputs)

    def _pieces(
        self, inputs: torch.Tensor, places: IntArray
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        import torch

        targets = torch.from_numpy(self.source.codes[places]).to(self.device)
        for start in range(0, len(inputs), self.size):
            yield inputs[start : start + self.size], targets[start : start + self.size]


def block_order(n: int, rng: np.random.Generator) -> IntArray:
    """A permutation of n places, (n,) int64; each `MIXED * RUN` in turn are from `MIXED` runs.

    Rows that are stored by category come as well mixed as `MIXED` draws from all of them.
    """
    order = np.empty(n, dtype=np.int64)
    runs, filled = rng.permutation(-(-n // RUN)), 0
    for start in range(0, len(runs), MIXED):
        chosen = [np.arange(r * RUN, min((r + 1) * RUN, n)) for r in runs[start : start + MIXED]]
        mixed = rng.permutation(np.concatenate(chosen))
        order[filled : filled + len(mixed)] = mixed
        filled += len(mixed)
    return order


def hide_modality(X: FloatArray, rate: float, rng: np.random.Generator) -> None:
    """Zero the image or the text half of a share `rate` of the rows that have both, in place."""
    middle = X.shape[1] // 2
    hidden = _hidden(_with_both(X), rate, rng)
    X[hidden == 1, :middle] = 0
    X[hidden == _TEXT, middle:] = 0


_TEXT = 2


def _with_both(X: FloatArray) -> BoolArray:
    middle = X.shape[1] // 2
    return np.asarray(X[:, :middle].any(axis=1) & X[:, middle:].any(axis=1), dtype=np.bool_)


def _hidden(both: BoolArray, rate: float, rng: np.random.Generator) -> IntArray:
    """Which half to hide of rows that have `both`, (n,): 0 none, 1 the image, 2 the text."""
    if not rate:
        return np.zeros(len(both), dtype=np.int64)
    draw = rng.random(len(both))
    hidden = np.where(draw < rate / 2, 1, np.where(draw >= 1 - rate / 2, _TEXT, 0))
    return np.where(both, hidden, 0)


KEPT = 10_000
"""Rows up to which all inputs are made once and kept, 123 MB at 1,024 columns."""


def batches_of(
    source: TrainingSet, size: int, device: torch.device, whitening: Whitening | None = None
) -> Batches | KeptBatches:
    """Batches that are gathered anew each epoch, or of few rows made once."""
    batches = Batches(source, size, device, whitening)
    return KeptBatches(batches) if len(source) <= KEPT else batches


class KeptBatches:
    """As `Batches`, in memory: each row as it is, without its image and without its text."""

    def __init__(self, batches: Batches) -> None:
        import torch

        self._batches = batches
        n = len(batches.source)
        X = batches._gather(np.arange(n, dtype=np.int64))
        middle = X.shape[1] // 2
        self._both = _with_both(X)
        views = np.repeat(X[None], 3, axis=0)
        views[1, :, :middle] = 0
        views[_TEXT, :, middle:] = 0
        self._views = torch.stack([batches._inputs(view) for view in views])

    def shuffled(
        self, rng: np.random.Generator, modality_dropout: float
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """See `Batches`."""
        order = rng.permutation(len(self._both)).astype(np.int64)
        for places in self._batches._blocks(order):
            hidden = _hidden(self._both[places], modality_dropout, rng)
            yield from self._batches._pieces(self._views[hidden, places], places)

    def in_order(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """See `Batches`."""
        yield from self._batches._pieces(self._views[0], np.arange(len(self._both)))
