"""CLIP in NumPy alone: an answer to one query before torch would be imported.

The arithmetic of transformers' CLIPModel with two exact shortcuts: the last block is computed for
the pooled token only, and the image processor's normalisation is folded into the patch weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kinshelf.store.clip_weights import ClipWeights, Layer, Linear, Tower
    from kinshelf.store.preprocess import Preprocessing

FloatArray = NDArray[np.float32]


class NumpyClip:
    """Features of one modality, not yet of unit norm."""

    def __init__(self, weights: ClipWeights, preprocessing: Preprocessing) -> None:
        self._weights = weights
        self._patches = fold_normalisation(weights.patches, preprocessing)

    def images(self, pixels: NDArray[np.uint8]) -> FloatArray:
        """(n, d) of n pictures, (n, H, W, 3) uint8 as `Preprocessing.pixels` gives them."""
        w, (kernel, bias) = self._weights, self._patches
        patches = cut_patches(pixels, w.patches.shape[-1]).astype(np.float32)
        x = np.empty((len(pixels), len(w.vision.positions), kernel.shape[0]), dtype=np.float32)
        x[:, 0] = w.class_embedding
        x[:, 1:] = _linear(patches, (kernel, bias))
        x = _norm(x + w.vision.positions, w.pre_norm, w.vision.eps)
        return _run(x, w.vision, None, np.zeros(len(x), dtype=np.int64))

    def texts(self, ids: NDArray[np.int64], ends: NDArray[np.int64]) -> FloatArray:
        """(n, d) of n texts, (n, length) token ids; row i is pooled at token `ends[i]`.

        What follows that token is never read, so any padding will do.
        """
        length = ids.shape[1]
        x = self._weights.tokens[ids] + self._weights.text.positions[:length]
        mask = np.triu(np.full((length, length), -np.inf, dtype=np.float32), 1)
        return _run(x, self._weights.text, mask, ends)


def fold_normalisation(patches: FloatArray, preprocessing: Preprocessing) -> Linear:
    """Patch weights, (width, patch * patch * 3), and bias that read uint8 levels directly."""
    mean = np.asarray(preprocessing.mean)[:, None, None]
    std = np.asarray(preprocessing.std)[:, None, None]
    kernel = patches.astype(np.float64) / std
    bias = -(kernel * mean).sum(axis=(1, 2, 3))
    kernel = (kernel * preprocessing.scale).transpose(0, 2, 3, 1).reshape(len(patches), -1)
    return np.ascontiguousarray(kernel, dtype=np.float32), bias.astype(np.float32)


def cut_patches(pixels: NDArray[np.uint8], patch: int) -> NDArray[np.uint8]:
    """(n, patches, patch * patch * 3), row by row; a margin narrower than a patch is left out."""
    count, height, width = len(pixels), pixels.shape[1] // patch, pixels.shape[2] // patch
    whole = pixels[:, : height * patch, : width * patch]
    cut = whole.reshape(count, height, patch, width, patch, 3).swapaxes(2, 3)
    return cut.reshape(count, height * width, patch * patch * 3)


def _run(
    x: FloatArray, tower: Tower, mask: FloatArray | None, ends: NDArray[np.int64]
) -> FloatArray:
    for layer in tower.layers[:-1]:
        x = _block(x, layer, tower, mask, None)
    last = None if mask is None else mask[ends][:, None, None]
    pooled = _block(x, tower.layers[-1], tower, last, ends)[:, 0]
    return np.asarray(_norm(pooled, tower.final_norm, tower.eps) @ tower.projection.T)


def _block(
    x: FloatArray,
    layer: Layer,
    tower: Tower,
    mask: FloatArray | None,
    ends: NDArray[np.int64] | None,
) -> FloatArray:
    """One block, (n, tokens, width), or (n, 1, width) if only the tokens `ends` are wanted."""
    normed = wanted = _norm(x, layer.norm1, tower.eps)
    width = x.shape[-1]
    if ends is not None:
        wanted, x = (each[np.arange(len(x)), ends][:, None] for each in (normed, x))
    scale = np.float32((width // tower.heads) ** -0.5)
    q = _heads(_linear(wanted, layer.q) * scale, tower.heads)
    k, v = (_heads(_linear(normed, each), tower.heads) for each in (layer.k, layer.v))
    scores = q @ k.swapaxes(2, 3)
    if mask is not None:
        scores += mask
    mixed = (_softmax(scores) @ v).swapaxes(1, 2).reshape(len(x), -1, width)
    x = x + _linear(mixed, layer.out)
    hidden = _ACTIVATIONS[tower.activation](_linear(_norm(x, layer.norm2, tower.eps), layer.fc1))
    return x + _linear(hidden, layer.fc2)


def _linear(x: FloatArray, layer: Linear) -> FloatArray:
    # One matrix product: NumPy would make one for each item of a stack.
    flat = x.reshape(-1, x.shape[-1]) @ layer[0].T
    flat += layer[1]
    return flat.reshape(*x.shape[:-1], -1)


def _norm(x: FloatArray, layer: Linear, eps: float) -> FloatArray:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    centred /= np.sqrt(variance + np.float32(eps))
    return np.asarray(centred * layer[0] + layer[1])


def _heads(x: FloatArray, heads: int) -> FloatArray:
    return x.reshape(len(x), x.shape[1], heads, -1).swapaxes(1, 2)


def _softmax(x: FloatArray) -> FloatArray:
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)
    return x


def _quick_gelu(x: FloatArray) -> FloatArray:
    # exp overflows to infinity for a very negative x, which gives the right 0.
    with np.errstate(over="ignore"):
        return np.asarray(x / (1 + np.exp(np.float32(-1.702) * x)))


def _gelu(x: FloatArray) -> FloatArray:
    from scipy.special import erf

    return np.asarray(x * (1 + erf(x * np.float32(0.5**0.5))) * np.float32(0.5))


_ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "quick_gelu": _quick_gelu,
    "gelu": _gelu,
}
