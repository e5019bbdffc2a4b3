"""CLIP in NumPy alone: an answer to one query before torch would be imported.

The arithmetic of transformers' CLIPModel with one exact shortcut: the last block is computed for
the pooled token only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import FloatArray
from kinshelf.store.encode.clip.numpy_linear import Apply, linear
from kinshelf.store.encode.precision import FLOAT32, text_attention

if TYPE_CHECKING:
    from kinshelf.store.encode.clip.weights import ClipWeights, Layer, Linear, Tower
    from kinshelf.store.encode.image_processor import Preprocessing


class NumpyClip:
    """Features of one modality, not yet of unit norm; thread-safe."""

    def __init__(
        self, weights: ClipWeights, preprocessing: Preprocessing, precision: str = FLOAT32
    ) -> None:
        self._weights = weights
        self._preprocessing = preprocessing
        apply = linear(precision)
        self._vision = _Tower(weights.vision, apply, apply)
        self._text = _Tower(weights.text, linear(text_attention(precision)), apply)

    def images(self, pixels: NDArray[np.uint8]) -> FloatArray:
        """(n, d) of n pictures, (n, H, W, 3) uint8 as `Preprocessing.pixels` gives them."""
        w = self._weights
        patches = _cut(self._preprocessing.normalised(list(pixels)), w.patches.shape[-1])
        x = np.empty((len(pixels), len(w.vision.positions), len(w.patches)), dtype=np.float32)
        x[:, 0] = w.class_embedding
        x[:, 1:] = patches @ w.patches.reshape(len(w.patches), -1).T
        x = _norm(x + w.vision.positions, w.pre_norm, w.vision.eps)
        return self._vision.run(x, None, np.zeros(len(x), dtype=np.int64))

    def texts(self, ids: NDArray[np.int64], ends: NDArray[np.int64]) -> FloatArray:
        """(n, d) of n texts, (n, length) token ids; row i is pooled at token `ends[i]`.

        What follows that token is never read, so any padding will do.
        """
        length = ids.shape[1]
        x = self._weights.tokens[ids] + self._weights.text.positions[:length]
        mask = np.triu(np.full((length, length), -np.inf, dtype=np.float32), 1)
        return self._text.run(x, mask, ends)


def _cut(pictures: FloatArray, patch: int) -> FloatArray:
    """(n, patches, 3 * patch * patch), row by row; a margin narrower than a patch is left out."""
    count, height, width = len(pictures), pictures.shape[2] // patch, pictures.shape[3] // patch
    whole = pictures[:, :, : height * patch, : width * patch]
    cut = whole.reshape(count, 3, height, patch, width, patch).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(count, height * width, -1)


class _Tower:
    def __init__(self, tower: Tower, attention: Apply, rest: Apply) -> None:
        self._tower = tower
        self._attention, self._rest = attention, rest

    def run(self, x: FloatArray, mask: FloatArray | None, ends: NDArray[np.int64]) -> FloatArray:
        tower = self._tower
        for layer in tower.layers[:-1]:
            x = self._block(x, layer, mask, None)
        last = None if mask is None else mask[ends][:, None, None]
        pooled = self._block(x, tower.layers[-1], last, ends)[:, 0]
        return np.asarray(_norm(pooled, tower.final_norm, tower.eps) @ tower.projection.T)

    def _block(
        self, x: FloatArray, layer: Layer, mask: FloatArray | None, ends: NDArray[np.int64] | None
    ) -> FloatArray:
        """One block, (n, tokens, width), or (n, 1, width) if only the tokens `ends` are wanted."""
        heads, eps = self._tower.heads, self._tower.eps
        normed = wanted = _norm(x, layer.norm1, eps)
        if ends is not None:
            wanted, x = (each[np.arange(len(x)), ends][:, None] for each in (normed, x))
        q = _heads(_apply(self._attention, wanted, layer.q), heads)
        k, v = (_heads(_apply(self._attention, normed, each), heads) for each in (layer.k, layer.v))
        q *= np.float32(q.shape[-1] ** -0.5)
        scores = q @ k.swapaxes(2, 3)
        if mask is not None:
            scores += mask
        mixed = (_softmax(scores) @ v).swapaxes(1, 2).reshape(x.shape)
        x = x + _apply(self._attention, mixed, layer.out)
        hidden = _apply(self._rest, _norm(x, layer.norm2, eps), layer.fc1)
        return x + _apply(self._rest, _ACTIVATIONS[self._tower.activation](hidden), layer.fc2)


def _apply(linear: Apply, x: FloatArray, layer: Linear) -> FloatArray:
    # One matrix product: NumPy would make one for each item of a stack.
    flat = linear(x.reshape(-1, x.shape[-1]), layer)
    return flat.reshape(*x.shape[:-1], -1)


def _norm(x: FloatArray, layer: Linear, eps: float) -> FloatArray:
    centred: FloatArray = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    centred /= np.sqrt(variance + np.float32(eps))
    centred *= layer[0]
    centred += layer[1]
    return centred


def _heads(x: FloatArray, heads: int) -> FloatArray:
    return x.reshape(len(x), x.shape[1], heads, -1).swapaxes(1, 2)


def _softmax(x: FloatArray) -> FloatArray:
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)
    return x


def _quick_gelu(x: FloatArray) -> FloatArray:
    gate: FloatArray = x * np.float32(-1.702)
    # exp overflows to infinity for a very negative x, which gives the right 0.
    with np.errstate(over="ignore"):
        np.exp(gate, out=gate)
    gate += 1
    np.divide(x, gate, out=gate)
    return gate


def _gelu(x: FloatArray) -> FloatArray:
    from scipy.special import erf

    return np.asarray(x * (1 + erf(x * np.float32(0.5**0.5))) * np.float32(0.5))


_ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "quick_gelu": _quick_gelu,
    "gelu": _gelu,
}
