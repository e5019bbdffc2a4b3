"""A trained probe: an immutable value that answers in NumPy alone, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import Float64Array, FloatArray
from kinshelf.db.errors import InvalidEmbeddings
from kinshelf.probe.fit.settings import Calibration, Policy, ProbeSettings

INPUT_SCALE = math.sqrt(2)
"""Fused embeddings times this are the unit embedding pairs `[image ; text]` that the weights
read."""

WEIGHT_NAMES = ("net.0.weight", "net.0.bias", "net.3.weight", "net.3.bias")
"""Linear layers of `nn.Sequential(Linear, ReLU, Dropout, Linear)` in a module's attribute `net`."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """An MLP head with one hidden layer, as trained at a generation of a shelf.

    `classes` are sorted, one per column of an answer. `weights` are float32: `net.0.weight`
    (hidden, D), `net.0.bias` (hidden,), `net.3.weight` (n_classes, hidden), `net.3.bias`
    (n_classes,). `trained_rows` counts the rows that the weights were fitted on. `reference` are
    arrays of what was measured on held-out training rows (see `probe.calibrate`), by name.
    """

    classes: tuple[str, ...]
    weights: Mapping[str, FloatArray]
    settings: ProbeSettings
    trained_rows: int
    generation: int = 0
    fingerprint: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    calibration: Calibration = field(default_factory=Calibration)
    reference: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    policy: Policy | None = None

    @property
    def input_dim(self) -> int:
        """Columns of a fused embedding, D."""
        return int(self.weights["net.0.weight"].shape[1])

    def hidden(self, X: FloatArray) -> FloatArray:
        """Activations of the hidden layer for fused embeddings (n, D): (n, hidden) float32.

        Raises InvalidEmbeddings.
        """
        if X.ndim != 2 or X.shape[1] != self.input_dim:
            raise InvalidEmbeddings(
                f"the probe reads embeddings of shape (n, {self.input_dim}), not {X.shape}: "
                "use the shelf's encoder, or train again"
            )
        w = self.weights
        pairs = np.multiply(X, np.float32(INPUT_SCALE), dtype=np.float32)
        found = np.maximum(pairs @ w["net.0.weight"].T + w["net.0.bias"], np.float32(0))
        return np.asarray(found, dtype=np.float32)

    def logits(self, X: FloatArray) -> FloatArray:
        """Compute logits (n, n_classes) float32 of fused embeddings (n, D) float32. Raises
        InvalidEmbeddings."""
        w = self.weights
        return np.asarray(self.hidden(X) @ w["net.3.weight"].T + w["net.3.bias"], dtype=np.float32)

    def predict_proba(self, X: FloatArray) -> Float64Array:
        """`softmax(logits / temperature)`, (n, n_classes) float64. Raises InvalidEmbeddings."""
        return self.with_temperature(self.calibration.temperature, X)

    def with_temperature(self, temperature: float, X: FloatArray) -> Float64Array:
        """Copy the probe with another temperature."""
        return softmax(self.logits(X) / temperature)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)


def softmax(logits: NDArray[np.floating[Any]]) -> Float64Array:
    """Rows of probabilities, float64; finite for any finite logits."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)
