"""CLIP in plain torch for many items: the arithmetic of clip_numpy with faster linear layers.

Fewer passes over memory than transformers' modules make: query, key and value in one product,
quick_gelu as one fused silu (its factor moved into the weights around it), the last block on the
pooled token only, the image processor's normalisation inside the patch weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from kinshelf.store.clip_linear import linear
from kinshelf.store.clip_numpy import cut_patches, fold_normalisation

if TYPE_CHECKING:
    from kinshelf.store.clip_weights import ClipWeights, Layer, Linear, Tower
    from kinshelf.store.preprocess import Preprocessing

Apply = Callable[[torch.Tensor], torch.Tensor]
_QUICK = 1.702
"""quick_gelu(x) = x * sigmoid(1.702 x) = silu(1.702 x) / 1.702."""


@dataclass(frozen=True, slots=True)
class _Block:
    norm1: Apply
    q: Apply
    kv: Apply
    qkv: Apply
    out: Apply
    norm2: Apply
    fc1: Apply
    activation: Apply
    fc2: Apply
    heads: int


class TorchClip:
    """Features of one modality, not yet of unit norm; safe to call from several threads."""

    def __init__(
        self, weights: ClipWeights, preprocessing: Preprocessing, precision: str, device: str
    ) -> None:
        self._device = torch.device(device)
        self._patch = weights.patches.shape[-1]
        kernel, bias = fold_normalisation(weights.patches, preprocessing)
        self._patches = self._put(kernel), self._put(bias)
        self._class = self._put(weights.class_embedding)
        self._pre_norm = self._norm(weights.pre_norm, weights.vision.eps)
        self._vision = _TorchTower(self, weights.vision, precision)
        self._text = _TorchTower(self, weights.text, precision)
        self._tokens = self._put(weights.tokens)

    def images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, d) of n pictures, (n, H, W, 3) uint8 as `Preprocessing.pixels` gives them."""
        with torch.inference_mode():
            levels = torch.from_numpy(pixels).to(self._device)
            patches = functional.linear(_cut(levels, self._patch).float(), *self._patches)
            first = self._class.expand(len(patches), 1, -1)
            x = self._pre_norm(torch.cat([first, patches], 1) + self._vision.positions)
            return self._vision(x, 0, causal=False).cpu().numpy()

    def texts(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, d) of n texts of equal length, (n, length) token ids, pooled at the last one."""
        with torch.inference_mode():
            length = ids.shape[1]
            tokens = self._tokens[torch.from_numpy(ids).to(self._device)]
            x = tokens + self._text.positions[:length]
            return self._text(x, length - 1, causal=True).cpu().numpy()

    def _put(self, array: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    def _norm(self, layer: Linear, eps: float) -> Apply:
        scale, shift = map(self._put, layer)
        return lambda x: functional.layer_norm(x, scale.shape, scale, shift, eps)


_cut = cut_patches


class _TorchTower:
    def __init__(self, model: TorchClip, tower: Tower, precision: str) -> None:
        self.positions = model._put(tower.positions)
        self._final = model._norm(tower.final_norm, tower.eps)
        self._projection = model._put(tower.projection)
        self._blocks = [_block(model, layer, tower, precision) for layer in tower.layers]
