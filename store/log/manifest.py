"""MANIFEST: what a shelf is. Two lines, the JSON and its CRC-32."""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinshelf.db.catalog.schema import is_count, is_identity, is_text, or_none
from kinshelf.db.errors import ShelfDamaged, ShelfNotFound, UnsupportedFormat
from kinshelf.db.files import read_bytes
from kinshelf.db.product import FIRST, POOLINGS, pooled_by
from kinshelf.store.log import disk, migrations

FORMAT = migrations.FORMAT
NAME = "MANIFEST"
_MOST = 1 << 20
"""Bytes of it that are read: kinshelf writes some hundreds."""


def _is_canary(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_text, value.values()))


def _is_pooling(value: Any) -> bool:
    return value in POOLINGS


_CHECKS = {
    **dict.fromkeys(("epoch", "first_row", "base_generation", "sealed"), is_count),
    "canary": or_none(_is_canary),
    "pictures": _is_pooling,
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """`dimension` is that of one modality (a stored row has twice as many); None until known.

    `fingerprint` is None until the shelf's encoder was used; embeddings that a user supplied
    before that are taken to be of `encoder`, on the user's word.
    `first_row` is the row number of the first vector of this epoch's file, `base_generation` the
    oldest that is kept, and `sealed` the bytes of the log that were there when the epoch began.
    `precision` is the class of the arithmetic, None until it is chosen; `canary` see canary.py;
    `pictures` one of `POOLINGS`.
    """

    format: int = FORMAT
    epoch: int = 0
    first_row: int = 0
    base_generation: int = 0
    dimension: int | None = None
    encoder: str = ""
    revision: str | None = None
    fingerprint: str | None = None
    sealed: int = 0
    precision: str | None = None
    canary: dict[str, str] | None = None
    pictures: str = FIRST

    @property
    def space(self) -> str:
        """What shelves and probes must share for their vectors to be comparable.

        The fingerprint of the encoder, `declared:...` while all embeddings were supplied; behind
        it the way in which several pictures become one half, if that is not the first's.
        """
        return pooled_by(self.fingerprint or f"declared:{self.encoder}", self.pictures)

    def replace(self, **changes: object) -> Manifest:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def identity(self) -> dict[str, Any]:
        """The facts that only the manifest holds: the encoder, its dimension, the pooling."""
        names = ("encoder", "revision", "fingerprint", "dimension", "precision", "pictures")
        return {name: getattr(self, name) for name in names}


@functools.lru_cache(maxsize=64)  # every query asks for it, and joining takes longer than stat
def _path(directory: Path) -> Path:
    return directory / NAME


def stamp_of(directory: Path) -> tuple[int, int]:
    """What changes when the manifest is replaced."""
    try:
        status = _path(directory).stat()
    except OSError:
        return (0, 0)  # reading it reports what is wrong
    return status.st_ino, status.st_mtime_ns


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically and durably."""
    body = json.dumps(dataclasses.asdict(manifest), sort_keys=True).encode()
    disk.replace(directory / NAME, body + b"\n%08x\n" % zlib.crc32(body))


def read_manifest(directory: Path) -> Manifest:
    """Read and check the manifest.

    Raises ShelfNotFound, ShelfDamaged (checksum) or UnsupportedFormat.
    """
    try:
        raw = read_bytes(directory / NAME, _MOST)
    except (FileNotFoundError, NotADirectoryError):
        if any(path.lstat().st_size for path in directory.glob("log-*.wal")):
            raise ShelfDamaged(
                f"{directory / NAME} is missing: restore it from a backup, or make it anew with"
                " `kinshelf verify --repair`"
            ) from None
        raise ShelfNotFound(
            f"no shelf at {directory}: make one with `kinshelf init --shelf {directory}`,"
            " or name another with --shelf or KINSHELF_SHELF"
        ) from None
    body, _, checksum = raw.partition(b"\n")
    if checksum.strip() != b"%08x" % zlib.crc32(body):
        raise _damaged(directory, "its checksum does not match")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise _damaged(directory, "it is not JSON") from None
    return _parse(directory, fields)


def _damaged(directory: Path, why: str) -> ShelfDamaged:
    return ShelfDamaged(
        f"{directory / NAME} is damaged ({why}): restore it from a backup, or make it anew with"
        " `kinshelf verify --repair`"
    )


def _parse(directory: Path, fields: Any) -> Manifest:
    if not isinstance(fields, dict):
        raise _damaged(directory, "it is no JSON object")
    if fields.get("format") not in (FORMAT, *migrations.STEPS):
        raise UnsupportedFormat(
            f"{directory} has format {fields.get('format')}, this kinshelf reads"
            f" {min(migrations.STEPS)} to {FORMAT}:"
            " install the version of kinshelf that wrote it, or a newer one"
        )
    known = {field.name for field in dataclasses.fields(Manifest)}
    stated = {k: v for k, v in migrations.migrate(fields).items() if k in known}
    if not is_identity(stated) or not all(
        check(stated[name]) for name, check in _CHECKS.items() if name in stated
    ):
        raise _damaged(directory, "it states what kinshelf does not write")
    return Manifest(**stated)
