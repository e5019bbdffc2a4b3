"""The encoder: pictures and texts to unit embeddings, by a frozen CLIP.

Every runtime satisfies `Encoder`; `load_encoder` chooses one. Nothing heavy is imported, read or
downloaded before that call.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from kinshelf.db.errors import EncoderUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

DEFAULT_ENCODER = "openai/clip-vit-base-patch32"
# Its main branch (3d74acf9) holds the weights as a pickle only; this is the commit of the hub's own
# conversion to safetensors, a pull request on the same repository.
DEFAULT_REVISION = "c237dc49a33fc61debc9276459120b7eac67e7ef"

_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""What CUDA's driver shows of itself on Linux and in Windows' subsystem for it."""


@runtime_checkable
class Encoder(Protocol):
    """A frozen dual encoder. Deterministic; a row does not depend on the rest of its batch."""

    @property
    def name(self) -> str:
        """The hub id or directory, as it was given."""

    @property
    def dimension(self) -> int:
        """Projection size d of one modality, as the model states it."""

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints mean interchangeable embeddings (see store/encode/fingerprint.py)."""

    def preprocess(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop an RGB picture for the model: (H, W, 3) uint8.

        Safe to call from several threads while another encodes. Raises ImageRejected
        (`too-narrow`) for a strip that cannot be resized.
        """

    def encode_pixels(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Unit rows, (n, d), of n results of `preprocess`, in their order."""

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Unit rows, (n, d), of n RGB pictures, in their order."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit rows, (n, d), of n texts, in their order; the end of a long one is not read."""

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Count the texts that are longer than the encoder reads (77 tokens for CLIP)."""


def load_encoder(
    name: str = DEFAULT_ENCODER,
    *,
    revision: str | None = None,
    device: str | None = None,
    precision: str | None = "float32",
    runtime: str = "fast",
    steady: bool = False,
) -> Encoder:
    """Load a CLIP by hub id or directory, ready to encode.

    `revision` is a branch, tag or commit of the hub; the default encoder's is pinned, another's
    is its main branch. It does not count for a directory. `device` is torch's ("cpu", "cuda:1");
    without it CUDA is taken where there is one. `precision` is a class of `encode/precision.py`;
    None is the fastest that this machine has without a loss in ranking. `runtime` "reference" is
    transformers, with which every other model than a plain CLIP is encoded too. `steady` computes
    few items as it computes many: equal batches give equal bits, whatever came before them.

    Raises EncoderUnavailable, in one line with what to do, if the model cannot be found,
    downloaded or read. A hub that cannot be reached is given up within seconds.
    """
    from kinshelf.store.encode.hub import locate

    pinned = DEFAULT_REVISION if name == DEFAULT_ENCODER else None
    try:
        directory = locate(name, revision or pinned)
        return _load(name, directory, device, precision, runtime, steady=steady)
    except EncoderUnavailable as error:
        raise EncoderUnavailable(f"encoder {name!r}: {error}") from error


def _load(
    name: str,
    directory: Path,
    device: str | None,
    precision: str | None,
    runtime: str,
    *,
    steady: bool,
) -> Encoder:
    from kinshelf.store.encode.precision import FLOAT32, default_precision

    device = _device(device)
    wanted = precision or default_precision(device)
    if runtime == "fast":
        from kinshelf.store.encode.clip.encoder import FastClipEncoder

        try:
            return FastClipEncoder(name, directory, precision=wanted, device=device, steady=steady)
        except EncoderUnavailable:
            # No plain CLIP, or a damaged one: the reference loads it or reports what is wrong.
            if precision not in (None, FLOAT32):
                raise
    from kinshelf.store.encode.clip.transformers_clip import ClipEncoder

    return ClipEncoder(name, directory, device=device)


def _device(device: str | None) -> str:
    """The device to use; torch, slow to import, is asked only where there may be a GPU."""
    if device == "cpu" or (device is None and not any(map(os.path.exists, _GPU_DRIVERS))):
        return "cpu"
    from kinshelf.store.encode.clip.transformers_clip import choose_device

    return str(choose_device(device))
