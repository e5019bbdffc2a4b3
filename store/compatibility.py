"""Whether an encoder, or supplied embeddings, fit those that a shelf has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kinshelf.db.errors import EncoderMismatch, InvalidEmbeddings

if TYPE_CHECKING:
    from kinshelf.db.sources.parts import PartsManifest
    from kinshelf.store.encode.encoder import Encoder
    from kinshelf.store.log.manifest import Manifest


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
            f"{path} holds supplied embeddings of dimension {manifest.dimension}, but"
            f" {encoder.name} makes {encoder.dimension}: query with embeddings too, or make"
            " a shelf with the encoder that they came from"
        )


def check_dimension(dimension: int, path: Path | str, manifest: Manifest, *, empty: bool) -> None:
    """Raises InvalidEmbeddings unless the shelf at `path` can still take this dimension."""
    if dimension == manifest.dimension:
        return
    if not empty or manifest.fingerprint:
        named = manifest.fingerprint or f"declared:{manifest.encoder}"
        raise InvalidEmbeddings(
            f"these embeddings have {dimension} numbers a row, {path} holds"
            f" {manifest.dimension or 0} ({named}): bring embeddings of that encoder, or"
            " make another shelf"
        )


def check_parts(parts: PartsManifest, source: Path, path: Path | str, manifest: Manifest) -> None:
    """Raises EncoderMismatch, naming both, unless the shelf's encoder made the parts at `source`.

    Where the shelf's encoder was never used, its files are read if it goes by another name.
    """
    if manifest.fingerprint is not None:
        fits = manifest.space == parts.space
    else:
        fits = _same_name(parts, manifest) or _same_files(parts, manifest)
    if not fits:
        raise EncoderMismatch(
            f"{source} was encoded by {parts.encoder} ({parts.space}, {parts.precision}), but"
            f" {path} is for {manifest.encoder}"
            f" ({manifest.space if manifest.fingerprint else 'not used yet'},"
            f" {manifest.precision or 'no precision chosen'}): encode with"
            f" `--shelf {path}`, or make a shelf with `kinshelf init --encoder {parts.encoder}"
            f" --precision {parts.precision} --pictures {parts.pictures}`"
        )


def _same_name(parts: PartsManifest, manifest: Manifest) -> bool:
    same = (parts.encoder, parts.revision) == (manifest.encoder, manifest.revision)
    return same and manifest.precision in (None, parts.precision)


def _same_files(parts: PartsManifest, manifest: Manifest) -> bool:
    from kinshelf.db.errors import EncoderError
    from kinshelf.store.encode.encoder import load_encoder

    if manifest.precision not in (None, parts.precision):
        return False
    try:
        encoder = load_encoder(
            manifest.encoder, revision=manifest.revision, precision=parts.precision
        )
    except EncoderError:
        return False
    return encoder.fingerprint == parts.fingerprint
