"""The canary: embeddings of a few fixed inputs, kept with a shelf.

The fingerprint tells that a model's files are the same; the canary tells that what is computed
from them still is, whatever version of Pillow, tokenizers or torch is there by now.
"""

from __future__ import annotations

import base64
import functools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import EncoderMismatch, EncoderUnavailable
from kinshelf.store.encode.moved import EncoderRecord, found_again, is_gone
from kinshelf.store.encode.precision import BF16, FLOAT32, INT8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kinshelf.store.encode.encoder import Encoder

LEAST_COSINE = {FLOAT32: 0.9999, BF16: 0.999, INT8: 0.995}
"""Two machines of one precision class agree better than that; another processor does not."""

_TEXTS = (
    "Wooden train, 12 pieces: it's for ages 3+",
    "日本のおもちゃ 🧸 naïve café",
    "puzzle " * 99,
)
_LIBRARIES = ("kinshelf", "numpy", "pillow", "tokenizers", "torch", "transformers")
_INSTALLED = re.compile(rf"({'|'.join(_LIBRARIES)})-(.+)\.dist-info")


def load_encoder_of(path: Path | str, manifest: EncoderRecord) -> Encoder:
    """The encoder that the shelf at `path` names, in the shelf's precision.

    A directory that moved along with the shelf is found again by its fingerprint. Where the
    libraries are not those that the canary was made with, the canary is compared.
    Raises EncoderUnavailable or EncoderMismatch.
    """
    from kinshelf.store.encode.encoder import load_encoder

    precision = manifest.precision or (FLOAT32 if manifest.fingerprint else None)
    name = manifest.encoder
    if is_gone(name):
        name = found_again(path, manifest) or name
    try:
        encoder = load_encoder(name, revision=manifest.revision, precision=precision)
    except EncoderUnavailable as error:
        if not is_gone(name):
            raise
        remedy = f"if it moved, run `kinshelf reembed --encoder DIR --shelf {path}`: equal files"
        raise EncoderUnavailable(f"{error}; {remedy} are not embedded anew") from error
    canary = manifest.canary
    same = canary is not None and canary["libraries"] == libraries()
    if canary is not None and not same and encoder.fingerprint == manifest.fingerprint:
        check_canary(encoder, canary, path)
    return encoder


def identity_of(encoder: Encoder) -> dict[str, Any]:
    """Make the manifest's entry for the encoder at its first use."""
    return {
        "fingerprint": encoder.fingerprint,
        "dimension": encoder.dimension,
        "precision": getattr(encoder, "precision", FLOAT32),
        "canary": take_canary(encoder) if hasattr(encoder, "precision") else None,
    }


def take_canary(encoder: Encoder) -> dict[str, str]:
    """Make the manifest's canary: embeddings, base64 of float32, and the libraries behind them."""
    rows = _embeddings(encoder).astype("<f4")
    return {"rows": base64.b64encode(rows.tobytes()).decode(), "libraries": libraries()}


def check_canary(encoder: Encoder, canary: Mapping[str, Any], path: Path | str) -> None:
    """Raises EncoderMismatch, with the numbers, if the encoder embeds the inputs otherwise."""
    kept = np.frombuffer(base64.b64decode(canary["rows"]), "<f4")
    cosines = (_embeddings(encoder) * kept.reshape(-1, encoder.dimension)).sum(axis=1)
    least = LEAST_COSINE[getattr(encoder, "precision", FLOAT32)]
    if not np.all(cosines >= least):
        what = ("a picture", *(f"text {i}" for i in range(1, len(_TEXTS) + 1)))
        found = ", ".join(f"{name} {c:.6f}" for name, c in zip(what, cosines, strict=True))
        raise EncoderMismatch(
            f"{encoder.name} no longer gives the embeddings that {path} holds: cosines with the"
            f" shelf's fixed inputs are {found}, at least {least} is the same encoder; the shelf"
            f" was made with {canary['libraries']}, here are {libraries()}: install those, or"
            " embed the shelf anew with `kinshelf reembed`"
        )


@functools.cache
def libraries() -> str:
    """Names and versions of what decides an embedding besides the model's files."""
    found = _installed()
    return ", ".join(f"{name} {_version(name, found.get(name, set()))}" for name in _LIBRARIES)


def _installed() -> dict[str, set[str]]:
    """Versions by the names of the directories that installers write, which are quick to read."""
    found: dict[str, set[str]] = {}
    for folder in filter(Path.is_dir, map(Path, {*sys.path})):
        for entry in folder.iterdir():
            if match := _INSTALLED.fullmatch(entry.name):
                found.setdefault(match[1], set()).add(match[2])
    return found


def _version(name: str, found: set[str]) -> str:
    if len(found) == 1:
        return next(iter(found))
    # None or two of them: slow to import, but it knows which one counts.
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _embeddings(encoder: Encoder) -> FloatArray:
    """Of one picture and three texts, (4, d)."""
    from PIL import Image

    y, x = np.mgrid[:300, :200]
    levels = np.stack([x * y % 251, (x ^ y) % 256, (3 * x + y) % 256], axis=2)
    picture = Image.fromarray(levels.astype(np.uint8))
    return np.concatenate([encoder.encode_images([picture]), encoder.encode_texts(_TEXTS)])
