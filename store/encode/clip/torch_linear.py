"""Linear layers of the bulk path, one kind a precision class. Input and output are float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from kinshelf.db.errors import EncoderUnavailable
from kinshelf.store.encode.precision import BF16, INT8, cpu_flags, has_int8

Apply = Callable[[torch.Tensor], torch.Tensor]
_PACKED_FOR = 640
"""Rows of a product, about those of a batch of `Workers`; others are as fast from 64 on."""


def linear(
    weight: torch.Tensor, bias: torch.Tensor, precision: str, then: str | None = None
) -> Apply:
    """`x @ weight.T + bias` for x of (..., in), which it may overwrite; float32 comes back.

    "bf16" rounds both factors to bfloat16 and sums in float32. "int8" rounds each row of the
    weights and each token to 255 levels of its own, so that a row does not depend on its batch.
    `then` is what is done to the outcome, "swish" or "gelu"; it may then come back in the
    precision in which the next layer reads it. Raises EncoderUnavailable where this machine
    cannot.
    """
    if precision == INT8:
        return _then(_int8(weight, bias), then)
    kind = torch.bfloat16 if precision == BF16 else torch.float32
    if weight.device.type == "cpu" and _has_onednn(kind):
        return _onednn(weight.to(kind), bias.to(kind), then)
    half, half_bias = weight.to(kind), bias.to(kind)
    plain = _then(lambda x: functional.linear(x.to(kind), half, half_bias), then)
    return plain if then else lambda x: plain(x).float()


def _has_onednn(kind: torch.dtype) -> bool:
    """Whether oneDNN multiplies that kind here; bfloat16 only where the processor has AVX512."""
    ops = torch.ops.mkldnn
    return hasattr(ops, "_linear_pointwise") and (
        kind == torch.float32 or bool(ops._is_mkldnn_bf16_supported())
    )


def _then(apply: Apply, then: str | None) -> Apply:
    if then == "swish":
        return lambda x: functional.silu(apply(x), inplace=True)
    return (lambda x: functional.gelu(apply(x))) if then else apply


def _onednn(weight: torch.Tensor, bias: torch.Tensor, then: str | None) -> Apply:
    """oneDNN's product over weights packed once, whatever BLAS torch was built with.

    MKL leaves half of an AMD core idle in float32; for bfloat16 packing at each call costs 5 %.
    """
    kind, packed = weight.dtype, torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR)
    algorithm = "none" if then == "gelu" else ""

    def apply(x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(kind), packed, bias, then or "none", [], algorithm
        )
        return found if then else found.float()

    return apply


def _int8(weight: torch.Tensor, bias: torch.Tensor) -> Apply:
    if weight.device.type != "cpu" or not has_int8(cpu_flags()):
        raise EncoderUnavailable("int8 needs a CPU with AVX512-VNNI or AMX: encode with float32")
    scales = weight.abs().amax(1).clamp_min_(1e-12).div_(127)
    levels = weight.div(scales[:, None]).round_().to(torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(levels, None)
    zeros = torch.zeros(len(weight), dtype=torch.int32)

    def apply(x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        # Two plain reductions are several times as fast as one of the absolute values.
        largest = torch.maximum(flat.amax(-1, keepdim=True), flat.amin(-1, keepdim=True).neg_())
        scale = largest.clamp_min_(1e-12).div_(127)
        # In place, as nobody reads x again: memory, not arithmetic, is what this costs.
        tokens = flat.mul_(scale.reciprocal()).round_().to(torch.int8)
        # VNNI reads unsigned numbers: these are around 128, which flips the highest bit.
        tokens = tokens.view(torch.uint8).bitwise_xor_(128)
        product: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            tokens, 1.0, 128, packed, scales, zeros, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return product.mul_(scale).add_(bias).view(*x.shape[:-1], -1)

    return apply
