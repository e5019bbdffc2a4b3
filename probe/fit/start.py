"""Starting to train from a linear classifier in closed form, or where an earlier probe ended.

Ridge regression on the categories, over the whitened inputs; its penalty and the scale that makes
logits of its scores are those of least loss on rows left out, which one factorisation gives. A pair
of hidden units whose weights differ in sign alone is one linear score, so the network answers as
the regression does before its first step. Hidden units that are left over begin as torch has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import Float64Array, FloatArray, IntArray
from kinshelf.db.errors import InvalidSetting
from kinshelf.probe.fit.model import Probe, softmax
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.whitening import FEWEST

if TYPE_CHECKING:
    import torch

PENALTIES = (0.1, 0.3, 1.0, 3.0)
"""In units of the inputs' mean square. On four shops 0.3 to 3 were the best."""

SCALES = tuple(float(scale) for scale in np.geomspace(3, 60, 13))
USUAL = (1.0, 12.0)
"""Penalty and scale where there are too few rows to choose by."""

_QUIETER = 0.3
"""Weight of the hidden units that are left over, in torch's default."""
_JUDGED = 5000
_CLOSE = 1e-6


class Sums:
    """The sums that ridge regression needs of inputs (n, d) and classes, block by block.

    `shift` (d,) is what an input reads where a modality, a side of `middle`, is missing; a share
    `hidden` of the weight is on rows with one side missing, as they are in training.
    """

    def __init__(self, n_classes: int, shift: FloatArray, middle: int, hidden: float) -> None:
        width = len(shift) + 1
        self._n_classes, self._shift, self._middle, self._hidden = n_classes, shift, middle, hidden
        self.products = np.zeros((width, width))
        self.targets = np.zeros((width, n_classes))
        self._some: list[tuple[Float64Array, IntArray]] = []
        self._kept = 0

    def add(self, inputs: FloatArray, codes: IntArray) -> None:
        """Add a block of rows (n, d) and their classes (n,)."""
        rows = np.hstack([inputs, np.ones((len(inputs), 1), dtype=np.float32)])
        targets = _targets(codes, self._n_classes)
        if self._kept < _JUDGED:
            self._some.append((rows.astype(np.float64), codes))
            self._kept += len(rows)
        self._add(rows, targets, 1 - self._hidden)
        if self._hidden:
            for side in (slice(0, self._middle), slice(self._middle, -1)):
                alone = rows.copy()
                alone[:, side] = self._shift[side if side.start == 0 else slice(self._middle, None)]
                self._add(alone, targets, self._hidden / 2)

    def _add(self, rows: FloatArray, targets: FloatArray, weight: float) -> None:
        # what is too large for it makes the training diverge, which is reported there
        with np.errstate(over="ignore", invalid="ignore"):
            self.products += weight * (rows.T @ rows)
            self.targets += weight * (rows.T @ targets)

    def solve(self) -> Float64Array | None:
        """Weights and, last, biases of logits: (d + 1, n_classes); None where a sum overflowed."""
        if not (np.isfinite(self.products).all() and np.isfinite(self.targets).all()):
            return None
        rows = np.concatenate([rows for rows, _ in self._some])
        codes = np.concatenate([codes for _, codes in self._some])
        size = np.trace(self.products[:-1, :-1]) / max(len(self.products) - 1, 1)
        values, turn = np.linalg.eigh(self.products)
        turned, sums = rows @ turn, turn.T @ self.targets
        penalty, scale = USUAL
        if len(rows) - len(np.unique(codes)) >= FEWEST:
            found = [(self._loss(turned, codes, values, sums, p * size), p) for p in PENALTIES]
            (_, scale), penalty = min(found)
        kept = np.maximum(values, 0) + max(penalty * size, _CLOSE)
        return np.asarray(scale * (turn @ (sums / kept[:, None])), dtype=np.float64)

    def _loss(
        self,
        rows: Float64Array,
        codes: IntArray,
        values: Float64Array,
        sums: Float64Array,
        penalty: float,
    ) -> tuple[float, float]:
        """The least loss on rows left out, and the scale that has it."""
        kept = np.maximum(values, 0) + max(penalty, _CLOSE)
        scores = rows @ (sums / kept[:, None])
        own = np.minimum((rows**2) @ (1 / kept), 1 - _CLOSE)[:, None]
        left_out = (scores - own * _targets(codes, self._n_classes)) / (1 - own)
        at = np.arange(len(codes))
        found = []
        for scale in SCALES:
            given = np.maximum(softmax(left_out * scale)[at, codes], _CLOSE)
            found.append((float(-np.log(given).mean()), scale))
        return min(found)


def _targets(codes: IntArray, n_classes: int) -> FloatArray:
    targets = np.full((len(codes), n_classes), -1 / n_classes, dtype=np.float32)
    targets[np.arange(len(codes)), codes] += 1
    return targets


def sums_of(
    blocks: Iterable[tuple[torch.Tensor, torch.Tensor]],
    n_classes: int,
    shift: FloatArray,
    middle: int,
    hidden: float,
) -> Sums:
    """`Sums` of the batches of a training set."""
    found = Sums(n_classes, shift, middle, hidden)
    for inputs, codes in blocks:
        found.add(inputs.cpu().numpy(), codes.cpu().numpy())
    return found


def begin_from_linear(weights: dict[str, FloatArray], linear: Float64Array) -> None:
    """Make the network's `weights` (see `model.WEIGHT_NAMES`) answer as `linear` (d + 1,
    n_classes) does, or its leading directions where the hidden layer is small, in place."""
    first, bias = weights["net.0.weight"], weights["net.0.bias"]
    last, out = weights["net.3.weight"], weights["net.3.bias"]
    left, size, right = np.linalg.svd(linear[:-1], full_matrices=False)
    k = min(len(size), len(first) // 2)
    inner = (left[:, :k] * np.sqrt(size[:k])).T
    outer = right[:k].T * np.sqrt(size[:k])
    first[: 2 * k] = np.concatenate([inner, -inner])
    bias[: 2 * k] = 0
    last *= _QUIETER
    last[:, : 2 * k] = np.concatenate([outer, -outer], axis=1)
    out[:] = linear[-1]


_OUTPUT = ("net.3.weight", "net.3.bias")


def check_start(start: Probe, settings: ProbeSettings, dimension: int) -> None:
    """Raises InvalidSetting unless a network of these settings can take the probe's weights."""
    found, wanted = start.settings.hidden, settings.hidden
    if found != wanted:
        raise InvalidSetting(
            f"a warm start needs equal hidden layers: the earlier probe has hidden {found}, asked"
            f" is {wanted}; give --hidden {found}, or train without --warm-start"
        )
    if start.input_dim != dimension:
        raise InvalidSetting(
            f"a warm start needs equal embeddings: the earlier probe reads {start.input_dim}"
            f" values, the shelf's have {dimension}; train without --warm-start"
        )


def begin_from(
    network: torch.nn.Module,
    weights: Mapping[str, FloatArray],
    before: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Copy the hidden layer, and the outputs of the classes `before` that are still in `classes`.

    Outputs of new classes stay as the network has them.
    """
    import torch

    place = {name: code for code, name in enumerate(before)}
    shared = [(code, place[name]) for code, name in enumerate(classes) if name in place]
    own, theirs = (list(codes) for codes in zip(*shared, strict=True)) if shared else ([], [])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            given = torch.from_numpy(weights[name]).to(parameter.device)
            if name in _OUTPUT:
                parameter[own] = given[theirs]
            else:
                parameter.copy_(given)
