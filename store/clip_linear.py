"""Linear layers of the bulk path, one kind a precision class. Input and output are float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from kinshelf.db.errors import EncoderUnavailable
from kinshelf.store.precision import BF16, INT8, cpu_flags, has_int8

Apply = Callable[[torch.Tensor], torch.Tensor]


def linear(weight: torch.Tensor, bias: torch.Tensor, precision: str) -> Apply:
    """`x @ weight.T + bias` for x of (..., in) float32, which it may overwrite.

    "bf16" rounds both factors to bfloat16 and sums in float32. "int8" rounds each row of the
    weights and each token to 255 levels of its own, so that a row does not depend on its batch.
    Raises EncoderUnavailable where this machine cannot.
    """
    if precision == BF16:
        half, half_bias = weight.to(torch.bfloat16), bias.to(torch.bfloat16)
        return lambda x: functional.linear(x.to(torch.bfloat16), half, half_bias).float()
    if precision == INT8:
        return _int8(weight, bias)
    return lambda x: functional.linear(x, weight, bias)


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
