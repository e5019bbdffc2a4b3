"""Whether an encoder, or embeddings brought, fit those that a shelf has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kinshelf.db.errors import EncoderMismatch, InvalidEmbeddings

if TYPE_CHECKING:
    from kinshelf.store.encoder import Encoder
    from kinshelf.store.manifest import Manifest


def check_encoder(encoder: Encoder, path: Path | str, manifest: Manifest, *, empty: bool) -> None:
    """Raises EncoderMismatch, naming both, unless the encoder is that of the shelf at `path`."""
    known = manifest.fingerprint
    if known is not None and encoder.fingerprint != known:
        raise EncoderMismatch(
            f"{path} holds embeddings of {manifest.encoder} ({known}), not of"
            f" {encoder.name} ({encoder.fingerprint}): use the first, or make another shelf"
        )
    if known is None and not empty and encoder.dimension != manifest.dimension:
        raise EncoderMismatch(
            f"{path} holds brought embeddings of dimension {manifest.dimension}, but"
            f" {encoder.name} makes {encoder.dimension}: query with embeddings too, or make"
            " a shelf with the encoder that they came from"
        )


def check_dimension(dimension: int, path: Path | str, manifest: Manifest, *, empty: bool) -> None:
    """Raises InvalidEmbeddings unless the shelf at `path` can still take this dimension."""
    if not empty or manifest.fingerprint:
        named = manifest.fingerprint or f"declared:{manifest.encoder}"
        raise InvalidEmbeddings(
            f"these embeddings have {dimension} numbers a row, {path} holds"
            f" {manifest.dimension or 0} ({named}): bring embeddings of that encoder, or"
            " make another shelf"
        )
