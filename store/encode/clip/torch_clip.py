"""CLIP in plain torch for many items: the arithmetic of clip_numpy, fewer passes over memory.

Query, key and value are one product, quick_gelu is one silu (its factor moved into the weights
around it), the last block is computed for the pooled token only, the image processor's
normalisation is inside the patch weights. All of that is exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from kinshelf.db.arrays import FloatArray
from kinshelf.store.encode.clip.torch_linear import Apply, linear
from kinshelf.store.encode.precision import FLOAT32, text_attention

if TYPE_CHECKING:
    from kinshelf.store.encode.clip.weights import ClipWeights, Layer, Linear, Tower
    from kinshelf.store.encode.image_processor import Preprocessing

_QUICK = 1.702
"""quick_gelu(x) = x * sigmoid(1.702 x) = silu(1.702 x) / 1.702."""


class TorchClip:
    """Features of one modality, not yet of unit norm; safe to call from several threads.

    Raises EncoderUnavailable if the machine cannot compute in this precision.
    """

    def __init__(
        self, weights: ClipWeights, preprocessing: Preprocessing, precision: str, device: str
    ) -> None:
        self._device = torch.device(device)
        self._patch = weights.patches.shape[-1]
        patches = self._put(fold_normalisation(weights.patches, preprocessing))
        self._patches = linear(*patches, FLOAT32)
        self._first = torch.from_numpy(weights.class_embedding).to(self._device)
        self._pre_norm = _norm(self._put(weights.pre_norm), weights.vision.eps)
        self._tokens = torch.from_numpy(weights.tokens).to(self._device)
        self._vision = _TorchTower(weights.vision, precision, precision, self._device)
        attention = text_attention(precision)
        self._text = _TorchTower(weights.text, attention, precision, self._device)

    def _put(self, layer: Linear) -> tuple[torch.Tensor, torch.Tensor]:
        return _pair(layer, self._device)

    def images(self, pixels: NDArray[np.uint8]) -> FloatArray:
        """(n, d) of n pictures, (n, H, W, 3) uint8 as `Preprocessing.pixels` gives them."""
        with torch.inference_mode():
            levels = torch.from_numpy(pixels).to(self._device)
            patches = self._patches(cut_patches(levels, self._patch).float())
            x = torch.cat([self._first.expand(len(patches), 1, -1), patches], 1)
            x = self._pre_norm(x.add_(self._vision.positions))
            return _to_numpy(self._vision.run(x, None))

    def texts(self, ids: NDArray[np.int64], ends: NDArray[np.int64]) -> FloatArray:
        """(n, d) of n texts, (n, length) token ids; row i is pooled at token `ends[i]`.

        What follows that token is never read, so any padding will do.
        """
        with torch.inference_mode():
            tokens = self._tokens[torch.from_numpy(ids).to(self._device)]
            x = tokens.add_(self._text.positions[: ids.shape[1]])
            return _to_numpy(self._text.run(x, torch.from_numpy(ends).to(self._device)))


class _TorchTower:
    def __init__(self, tower: Tower, attention: str, precision: str, device: torch.device) -> None:
        self.positions = torch.from_numpy(tower.positions).to(device)
        self._norm = _norm(_pair(tower.final_norm, device), tower.eps)
        self._projection = torch.from_numpy(tower.projection).to(device)
        self._blocks = [_Block(each, tower, attention, precision, device) for each in tower.layers]

    def run(self, x: torch.Tensor, ends: torch.Tensor | None) -> torch.Tensor:
        """Causal and pooled at `ends`, or, without them, pooled at the first token."""
        for block in self._blocks[:-1]:
            x = block.whole(x, causal=ends is not None)
        return self._norm(self._blocks[-1].pooled(x, ends)[:, 0]) @ self._projection.T


class _Block:
    def __init__(
        self, layer: Layer, tower: Tower, attention: str, precision: str, device: torch.device
    ) -> None:
        def put(*layers: Linear) -> tuple[torch.Tensor, torch.Tensor]:
            pairs = [_pair(each, device) for each in layers]
            weight, bias = zip(*pairs, strict=True)
            return torch.cat(weight), torch.cat(bias)

        quick = tower.activation == "quick_gelu"
        factor = _QUICK if quick else 1.0
        self._heads = tower.heads
        self._qkv = linear(*put(layer.q, layer.k, layer.v), attention)
        self._out = linear(*put(layer.out), attention)
        weight, bias = put(layer.fc1)
        self._fc1 = linear(weight * factor, bias * factor, precision, "swish" if quick else "gelu")
        weight, bias = put(layer.fc2)
        self._fc2 = linear(weight / factor, bias, precision)
        self._norm1 = _norm(put(layer.norm1), tower.eps)
        self._norm2 = _norm(put(layer.norm2), tower.eps)

    def whole(self, x: torch.Tensor, *, causal: bool) -> torch.Tensor:
        q, k, v = self._split(x)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self._rest(x, mixed)

    def pooled(self, x: torch.Tensor, ends: torch.Tensor | None) -> torch.Tensor:
        """The output of the pooled token only, (n, 1, width)."""
        q, k, v = self._split(x)
        seen, at = None, torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if ends is not None:
            at = ends
            seen = (torch.arange(x.shape[1], device=x.device) <= ends[:, None])[:, None, None]
        rows = torch.arange(len(x), device=x.device)
        mixed = functional.scaled_dot_product_attention(q[rows, :, at][:, :, None], k, v, seen)
        return self._rest(x[rows, at][:, None], mixed)

    def _split(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        qkv = self._qkv(self._norm1(x)).view(*x.shape[:2], 3, self._heads, -1)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def _rest(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        x = x + self._out(mixed.transpose(1, 2).reshape(x.shape))
        return self._fc2(self._fc1(self._norm2(x))).add_(x)


def fold_normalisation(patches: FloatArray, preprocessing: Preprocessing) -> Linear:
    """Patch weights, (width, patch * patch * 3), and bias that read uint8 levels directly."""
    mean = np.asarray(preprocessing.mean)[:, None, None]
    std = np.asarray(preprocessing.std)[:, None, None]
    kernel = patches.astype(np.float64) / std
    bias = -(kernel * mean).sum(axis=(1, 2, 3))
    kernel = (kernel * preprocessing.scale).transpose(0, 2, 3, 1).reshape(len(patches), -1)
    return np.ascontiguousarray(kernel, dtype=np.float32), bias.astype(np.float32)


def cut_patches(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """(n, patches, patch * patch * 3), row by row; a margin narrower than a patch is left out."""
    count, height, width = len(pixels), pixels.shape[1] // patch, pixels.shape[2] // patch
    whole = pixels[:, : height * patch, : width * patch]
    cut = whole.reshape(count, height, patch, width, patch, 3).swapaxes(2, 3)
    return cut.reshape(count, height * width, patch * patch * 3)


def _pair(layer: Linear, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    weight, bias = (torch.from_numpy(each).to(device) for each in layer)
    return weight, bias


def _norm(layer: tuple[torch.Tensor, torch.Tensor], eps: float) -> Apply:
    scale, shift = layer
    return lambda x: functional.layer_norm(x, scale.shape, scale, shift, eps)


def _to_numpy(rows: torch.Tensor) -> FloatArray:
    found: FloatArray = rows.cpu().numpy()
    return found
