"""A network in training: an epoch of updates, and a check on held-out rows."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import ProbeError
from kinshelf.probe.fit.batches import Batches, KeptBatches, batches_of
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.network import build_network, load_weights, weights_of
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.split import TrainingSet
from kinshelf.probe.fit.start import begin_from, begin_from_linear, sums_of
from kinshelf.probe.fit.whitening import Whitening

_HELD_OUT_BATCH = 1024


class Trainer:
    """A network for the rows of `source`, fresh or with the weights of `start`; needs
    `mlp.repeatable` around it."""

    def __init__(
        self,
        source: TrainingSet,
        settings: ProbeSettings,
        device: torch.device,
        start: Probe | None = None,
    ) -> None:
        self._settings = settings
        self._device = device
        self._whitening = self._fit_whitening(source)
        self._batches = batches_of(source, settings.batch_size, device, self._whitening)
        self._held: tuple[TrainingSet, Batches | KeptBatches] | None = None
        self._modality_dropout = settings.modality_dropout
        self._rng = np.random.default_rng(settings.seed)
        self.network = self._fresh(len(source.classes))
        if start is not None:
            weights = self._whitening.unfold(start.weights)
            begin_from(self.network, weights, start.classes, source.classes)
        self._optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._half = _half_precision(settings, device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._half is torch.float16)

    def _fresh(self, n_classes: int) -> torch.nn.Module:
        """A network that begins at the closed form (see `probe.fit.start`)."""
        shift, middle = self._whitening.shift, self._whitening.image.shape[1]
        network = build_network(len(shift), n_classes, self._settings)
        blocks = self._batches.in_order()
        linear = sums_of(blocks, n_classes, shift, middle, self._modality_dropout).solve()
        if linear is not None:
            weights = weights_of(network)
            begin_from_linear(weights, linear)
            load_weights(network, weights)
        return network.to(self._device)

    def _fit_whitening(self, source: TrainingSet) -> Whitening:
        return Whitening.fit(source, self._settings.seed)

    def _exchange(self) -> None:
        """Between gradients and update; where several train one network they average here."""

    @property
    def weights(self) -> dict[str, FloatArray]:
        """A copy of the network's weights over unit embedding pairs, float32."""
        return self.folded(weights_of(self.network))

    def folded(self, weights: dict[str, FloatArray]) -> dict[str, FloatArray]:
        """Weights over whitened inputs as weights over unit embedding pairs."""
        return self._whitening.fold(weights)

    def train_epoch(self) -> float:
        """Go over the rows; the mean loss in nats. Raises ProbeError if it diverged."""
        self.network.train()
        total, seen = 0.0, 0
        for inputs, targets in self.batches():
            total += self._update(inputs, targets) * len(targets)
            seen += len(targets)
        return self._finite(total / seen)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Inputs and classes of an epoch, each row once in a fresh order."""
        return self._batches.shuffled(self._rng, self._modality_dropout)

    def evaluate(self, held: TrainingSet) -> tuple[float, float]:
        """Mean loss in nats and accuracy on rows that do not train. Raises ProbeError likewise."""
        loss, right, seen = self._judged(held)
        return self._finite(loss / seen), right / seen

    def _judged(self, held: TrainingSet) -> tuple[float, float, float]:
        """The sum of the losses, the right answers and the rows."""
        self.network.eval()
        loss, right = 0.0, 0
        with torch.inference_mode():
            for inputs, targets in self._batches_of(held).in_order():
                logits = self.network(inputs)
                loss += cross_entropy(logits, targets, reduction="sum").item()
                right += int((logits.argmax(dim=1) == targets).sum().item())
        return loss, right, len(held)

    def _batches_of(self, held: TrainingSet) -> Batches | KeptBatches:
        if self._held is None or self._held[0] is not held:
            made = batches_of(held, _HELD_OUT_BATCH, self._device, self._whitening)
            self._held = (held, made)
        return self._held[1]

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            lr = self._settings.lr
            raise ProbeError(f"training diverged, the loss is {loss} at lr {lr:g}: lower lr")
        return loss

    def _update(self, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        self._optimizer.zero_grad()
        with self._autocast():
            loss = cross_entropy(self.network(inputs), targets)
        torch.autograd.backward(self._scaler.scale(loss))
        self._exchange()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.item()

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self._half is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._half)


def _half_precision(settings: ProbeSettings, device: torch.device) -> torch.dtype | None:
    """The 16-bit type of mixed precision, None for float32 throughout."""
    wanted = settings.mixed_precision
    if not (device.type == "cuda" if wanted is None else wanted):
        return None
    # older cards have no bfloat16; float16 needs its loss scaled
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return torch.bfloat16
