"""Making an empty shelf, so that a creation which is cut short can be run again."""

from __future__ import annotations

import os
from pathlib import Path

from kinshelf.db.errors import InputError, ShelfError, ShelfExists
from kinshelf.db.product import MEAN, POOLINGS
from kinshelf.store.log import disk
from kinshelf.store.log.layout import log_path, vectors_path
from kinshelf.store.log.manifest import Manifest, write_manifest


def manifest_for(
    encoder: str | None, revision: str | None, precision: str | None, pictures: str | None = None
) -> Manifest:
    """The manifest of an empty shelf for an encoder; a directory by its absolute path.

    Raises EncoderUnavailable for no such precision, InputError for no such pooling of pictures.
    """
    if pictures not in (None, *POOLINGS):
        raise InputError(f"pictures is {pictures!r}, but must be one of {', '.join(POOLINGS)}")
    from kinshelf.store.encode.encoder import DEFAULT_ENCODER, DEFAULT_REVISION
    from kinshelf.store.encode.precision import check_precision

    if encoder is None:
        encoder, revision = DEFAULT_ENCODER, revision or DEFAULT_REVISION
    elif Path(encoder).is_dir():
        encoder = str(Path(encoder).resolve())
    elif encoder.startswith(("/", "./", "../", "~")):
        raise InputError(f"encoder {encoder!r}: there is no such directory")
    checked = precision and check_precision(precision)
    return Manifest(
        encoder=encoder, revision=revision, precision=checked, pictures=pictures or MEAN
    )


def create(directory: Path, manifest: Manifest) -> None:
    """Make the directory and its truth: empty log and vectors, then the manifest that names them.

    Raises ShelfExists if something is there already, other than what a creation that was cut
    short left behind; ShelfError if the disk refuses.
    """
    disk.check_system()
    if directory.exists() and not _unfinished(directory):
        raise ShelfExists(
            f"{directory} exists and is not empty: choose another directory or remove it first"
        )
    try:
        disk.make_directory(directory)
        for path in (vectors_path(directory, 0), log_path(directory, 0)):
            os.close(disk.create(path))
        write_manifest(directory, manifest)
    except OSError as error:
        raise ShelfError(
            f"making a shelf at {directory} failed ({error}): nothing was kept; free space or"
            " choose another directory, then try again"
        ) from error


def _unfinished(directory: Path) -> bool:
    """Whether a directory holds nothing, or only what a creation writes before its manifest."""
    if not directory.is_dir():
        return False
    empty = {vectors_path(directory, 0).name, log_path(directory, 0).name}
    return all(
        file.name == ".MANIFEST.tmp" or (file.name in empty and not file.stat().st_size)
        for file in directory.iterdir()
    )
