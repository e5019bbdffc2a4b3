"""Linear layers in NumPy, one kind a precision class, with the rounding of clip_linear's.

One product is the same numbers there and here but for the order of float32 sums. That order turns
a few roundings, so a whole pass differs by about as much as its class does from float32. No special
processor instructions are needed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.store.encode.precision import BF16, FLOAT32, INT8

Layer = tuple[FloatArray, FloatArray]
"""Weight (out, in) and bias (out,)."""
Apply = Callable[[FloatArray, Layer], FloatArray]
_ROWS = 128
"""Rows of weights rounded at a time: they stay in a core's cache until they are multiplied."""
_SMALLEST = np.float32(1e-12)


def linear(precision: str) -> Apply:
    """`x @ weight.T + bias` for x of (n, in) float32, as `store.clip_linear.linear`.

    The weights are rounded at each call: for a few queries that is less than to do it for good.
    """
    inputs, rows = _CLASSES[precision]

    def apply(x: FloatArray, layer: Layer) -> FloatArray:
        (weight, bias), (tokens, scale) = layer, inputs(x)
        out = np.empty((len(weight), len(x)), dtype=np.float32)
        # Weights first: BLAS takes few columns at 1.3 times the speed of few rows.
        rows(weight, tokens.T, out)
        if scale is not None:
            out *= scale.T
        out += bias[:, None]
        return out.T

    return apply


def _float32_inputs(x: FloatArray) -> tuple[FloatArray, None]:
    return x, None


def _float32_rows(weight: FloatArray, columns: FloatArray, out: FloatArray) -> None:
    np.matmul(weight, columns, out=out)


def _int8_inputs(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Each token as -127 to 127 of its scale, (n, 1)."""
    scale = _scale(x)
    levels = x * (1 / scale)
    return np.rint(levels, out=levels), scale


def _int8_rows(weight: FloatArray, columns: FloatArray, out: FloatArray) -> None:
    buffer = np.empty((_ROWS, weight.shape[1]), dtype=np.float32)
    for start in range(0, len(weight), _ROWS):
        part, into = weight[start : start + _ROWS], out[start : start + _ROWS]
        scale, levels = _scale(part), buffer[: len(part)]
        np.rint(np.divide(part, scale, out=levels), out=levels)
        # Products of levels are integers: float32 sums them as exactly as it need be.
        np.matmul(levels, columns, out=into)
        into *= scale


def _scale(x: FloatArray) -> FloatArray:
    largest = np.maximum(x.max(axis=1, keepdims=True), -x.min(axis=1, keepdims=True))
    return np.asarray(np.maximum(largest, _SMALLEST) / np.float32(127))


def _bf16_inputs(x: FloatArray) -> tuple[FloatArray, None]:
    return _round_to_bf16(x, np.empty(x.shape, dtype=np.float32)), None


def _bf16_rows(weight: FloatArray, columns: FloatArray, out: FloatArray) -> None:
    buffer = np.empty((_ROWS, weight.shape[1]), dtype=np.float32)
    for start in range(0, len(weight), _ROWS):
        part = weight[start : start + _ROWS]
        np.matmul(
            _round_to_bf16(part, buffer[: len(part)]), columns, out=out[start : start + _ROWS]
        )


def _round_to_bf16(x: FloatArray, out: FloatArray) -> FloatArray:
    """To 8 bits of mantissa, half to even; finite numbers only."""
    bits, rounded = np.ascontiguousarray(x).view(np.uint32), out.view(np.uint32)
    np.right_shift(bits, np.uint32(16), out=rounded)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded &= np.uint32(0xFFFF0000)
    return out


_CLASSES = {
    FLOAT32: (_float32_inputs, _float32_rows),
    INT8: (_int8_inputs, _int8_rows),
    BF16: (_bf16_inputs, _bf16_rows),
}
