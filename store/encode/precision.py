"""Precision classes: the arithmetic of an encoder, part of its fingerprint.

Embeddings of one class are interchangeable wherever they were computed; those of two classes are
not and never mix silently. What a processor can do is detected, never assumed.
"""

from __future__ import annotations

from pathlib import Path

from kinshelf.db.errors import EncoderUnavailable

FLOAT32, BF16, INT8 = "float32", "bf16", "int8"
PRECISIONS = (FLOAT32, BF16, INT8)
_CPUINFO = Path("/proc/cpuinfo")


def cpu_flags() -> frozenset[str]:
    """The processor's features as Linux names them; empty where they cannot be read."""
    try:
        lines = _CPUINFO.read_text("utf-8").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(found.partition(":")[2].split())


def has_bf16(flags: frozenset[str]) -> bool:
    """Whether the processor multiplies bfloat16 matrices itself (AVX512-BF16 or AMX)."""
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def has_int8(flags: frozenset[str]) -> bool:
    """Whether it multiplies 8-bit matrices without overflow (AVX512-VNNI or AMX)."""
    return bool(flags & {"avx512_vnni", "amx_int8"})


def default_precision(device: str = "cpu") -> str:
    """The fastest class of which the ranking of neighbours does not notice anything."""
    if device.startswith("cuda"):
        import torch

        return BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else FLOAT32
    return BF16 if has_bf16(cpu_flags()) else FLOAT32


def text_attention(precision: str) -> str:
    """The class of the linear layers of a text tower's attention, a twenty-fifth of all arithmetic.

    In bfloat16 they would cost as much of the ranking of neighbours as everything else together.
    """
    return FLOAT32 if precision == BF16 else precision


def check_precision(precision: str) -> str:
    """The class itself. Raises EncoderUnavailable if there is none of that name."""
    if precision not in PRECISIONS:
        message = f"{precision!r} is no precision: give {', '.join(PRECISIONS)}"
        raise EncoderUnavailable(message)
    return precision
