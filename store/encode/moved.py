"""An encoder's directory that is no longer where a shelf expects it: found again by its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from kinshelf.db.errors import EncoderUnavailable
from kinshelf.store.encode.precision import FLOAT32

_LEVELS = 4
"""Folders above the shelf, and names of the old path, that are tried."""


class EncoderRecord(Protocol):
    """The encoder's entry in a shelf's manifest."""

    @property
    def encoder(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def precision(self) -> str | None: ...
    @property
    def fingerprint(self) -> str | None: ...
    @property
    def canary(self) -> dict[str, Any] | None: ...


def is_gone(encoder: str) -> bool:
    """Whether an encoder is named by the path of a directory that is not there."""
    return Path(encoder).is_absolute() and not Path(encoder).is_dir()


def has_moved_to(directory: Path, manifest: EncoderRecord) -> bool:
    """Whether the shelf's encoder, to the bit, is what lies in a directory."""
    from kinshelf.store.encode.fingerprint import fingerprint

    if manifest.fingerprint is None or not directory.is_dir():
        return False
    try:
        return fingerprint(directory, manifest.precision or FLOAT32) == manifest.fingerprint
    except (EncoderUnavailable, OSError, ValueError):
        return False


def found_again(path: Path | str, manifest: EncoderRecord) -> str | None:
    """Where the encoder of the shelf at `path` is, if it moved along with the shelf; else None."""
    places = dict.fromkeys(_places(Path(path).absolute(), Path(manifest.encoder)))
    return next((str(place) for place in places if has_moved_to(place, manifest)), None)


def _places(shelf: Path, encoder: Path) -> Iterator[Path]:
    for length in range(min(_LEVELS, len(encoder.parts) - 1), 0, -1):
        end = Path(*encoder.parts[-length:])
        for folder in [shelf, *shelf.parents][: _LEVELS + 1]:
            yield folder / end
