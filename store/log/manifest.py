"""MANIFEST: what a shelf is. Two lines, the JSON and its CRC-32."""

from __future__ import annotations

import dataclasses
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinshelf.db.errors import ShelfDamaged, ShelfNotFound, UnsupportedFormat
from kinshelf.store.log import disk, migrations

FORMAT = migrations.FORMAT
NAME = "MANIFEST"


@dataclass(frozen=True, slots=True)
class Manifest:
    """`dimension` is that of one modality (a stored row has twice as many); None until known.

    `fingerprint` is None until the shelf's encoder was used; embeddings that a user supplied
    before that are taken to be of `encoder`, on the user's word.
    `first_row` is the row number of the first vector of this epoch's file, `base_generation` the
    oldest that is kept, and `sealed` the bytes of the log that were there when the epoch began.
    `precision` is the class of the arithmetic, None until it is chosen; `canary` see canary.py.
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

    def replace(self, **changes: object) -> Manifest:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def identity(self) -> dict[str, Any]:
        """The facts that only the manifest holds: the encoder and its dimension."""
        names = ("encoder", "revision", "fingerprint", "dimension", "precision")
        return {name: getattr(self, name) for name in names}


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically and durably."""
    body = json.dumps(dataclasses.asdict(manifest), sort_keys=True).encode()
    disk.replace(directory / NAME, body + b"\n%08x\n" % zlib.crc32(body))


def read_manifest(directory: Path) -> Manifest:
    """Read and check the manifest.

    Raises ShelfNotFound, ShelfDamaged (checksum) or UnsupportedFormat.
    """
    try:
        raw = (directory / NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if any(path.stat().st_size for path in directory.glob("log-*.wal")):
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
        raise ShelfDamaged(
            f"{directory / NAME} is damaged (its checksum does not match): restore it from a"
            " backup, or make it anew with `kinshelf verify --repair`"
        )
    return _parse(directory, json.loads(body))


def _parse(directory: Path, fields: dict[str, Any]) -> Manifest:
    if fields.get("format") not in (FORMAT, *migrations.STEPS):
        raise UnsupportedFormat(
            f"{directory} has format {fields.get('format')}, this kinshelf reads"
            f" {min(migrations.STEPS)} to {FORMAT}:"
            " install the version of kinshelf that wrote it, or a newer one"
        )
    known = {field.name for field in dataclasses.fields(Manifest)}
    return Manifest(**{k: v for k, v in migrations.migrate(fields).items() if k in known})
