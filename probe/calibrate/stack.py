"""Networks of several folds trained together: one step of all costs little more than one of one.

Each is a `Trainer` that gives its own batches, whitening and start; the updates are those of Adam
on the mean cross-entropy, as `Trainer` makes them, written out for all networks at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import ProbeError
from kinshelf.probe.fit.model import WEIGHT_NAMES
from kinshelf.probe.fit.network import device_of, repeatable
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.split import TrainingSet
from kinshelf.probe.fit.trainer import Trainer

if TYPE_CHECKING:
    Batch = tuple[torch.Tensor, torch.Tensor] | None

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


def fit_together(
    parts: Sequence[TrainingSet], settings: ProbeSettings
) -> list[dict[str, FloatArray]]:
    """Weights over unit embedding pairs of a network a part, after all epochs of the settings.

    Parts share their classes and width. Raises ProbeError where the training diverged.
    """
    device = device_of(settings)
    with repeatable(settings.seed, device):
        trainers = [Trainer(part, settings, device) for part in parts]
        networks = _Networks(trainers, settings)
        for _ in range(settings.epochs):
            for batches in zip_longest(*(trainer.batches() for trainer in trainers)):
                networks.step(batches)
        return networks.weights()


class _Networks:
    """Parameters of F networks, (F, inputs, outputs) each, and Adam's moments."""

    def __init__(self, trainers: Sequence[Trainer], settings: ProbeSettings) -> None:
        self._trainers, self._settings = trainers, settings
        own = [[trainer.network.state_dict()[name] for trainer in trainers]
               for name in WEIGHT_NAMES]  # fmt: skip
        stacked = [torch.stack(tensors) for tensors in own]
        # products of batches want (inputs, outputs), biases a row of their own
        self._all = [
            one.transpose(1, 2).contiguous() if one.dim() == 3 else one[:, None].contiguous()
            for one in stacked
        ]
        self._means = [torch.zeros_like(one) for one in self._all]
        self._squares = [torch.zeros_like(one) for one in self._all]
        self._steps = [torch.zeros((), device=one.device) for one in self._all]

    @torch.no_grad()
    def step(self, batches: Sequence[Batch]) -> None:
        """One update of each network by its own batch; None: it has none left."""
        inputs, codes, weight = _padded(batches)
        first, bias, last, out = self._all
        hidden = torch.baddbmm(bias, inputs, first)
        open_ = hidden > 0
        kept = 1 - self._settings.dropout
        if kept < 1:
            open_ &= torch.rand(hidden.shape, device=hidden.device) < kept
        gate = open_ / kept
        hidden *= gate
        given = torch.softmax(torch.baddbmm(out, hidden, last), dim=2)
        given.scatter_add_(
            2, codes[:, :, None], torch.full_like(codes[:, :, None], -1.0, dtype=given.dtype)
        )
        given *= weight[:, :, None]
        back = torch.bmm(given, last.transpose(1, 2)).mul_(gate)
        gradients = [
            torch.bmm(inputs.transpose(1, 2), back), back.sum(1, keepdim=True),
            torch.bmm(hidden.transpose(1, 2), given), given.sum(1, keepdim=True),
        ]  # fmt: skip
        self._update(gradients)

    def _update(self, gradients: list[torch.Tensor]) -> None:
        torch._foreach_add_(self._steps, 1)
        torch._fused_adam_(
            self._all, gradients, self._means, self._squares, [], self._steps, amsgrad=False,
            lr=self._settings.lr, beta1=_BETAS[0], beta2=_BETAS[1],
            weight_decay=self._settings.weight_decay, eps=_EPSILON, maximize=False,
        )  # fmt: skip

    def weights(self) -> list[dict[str, FloatArray]]:
        """Over unit embedding pairs, a mapping a network. Raises ProbeError."""
        if not all(torch.isfinite(one).all() for one in self._all):
            raise ProbeError(f"training diverged at lr {self._settings.lr:g}: lower lr")
        found = []
        for i, trainer in enumerate(self._trainers):
            own = [one[i].t() if one.shape[1] > 1 else one[i, 0] for one in self._all]
            arrays = {name: value.contiguous().cpu().numpy()
                      for name, value in zip(WEIGHT_NAMES, own, strict=True)}  # fmt: skip
            found.append(trainer.folded(arrays))
        return found


def _padded(batches: Sequence[Batch]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs (F, b, d), classes (F, b) and the weight of each row's loss (F, b): 0 where there is
    none, or 1 over the rows of its batch."""
    some = [batch for batch in batches if batch is not None]
    size, width = max(len(codes) for _, codes in some), some[0][0].shape[1]
    inputs = some[0][0].new_zeros((len(batches), size, width))
    codes = some[0][1].new_zeros((len(batches), size))
    weight = inputs.new_zeros((len(batches), size))
    for i, batch in enumerate(batches):
        if batch is not None:
            n = len(batch[1])
            inputs[i, :n], codes[i, :n], weight[i, :n] = batch[0], batch[1], 1 / n
    return inputs, codes, weight
