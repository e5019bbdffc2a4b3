"""A folder of encoded products: Parquet parts, each with both embeddings, and what they are.

    DIR/parts.json                  what was encoded by what, and, once finished, every part
    DIR/part-0000012-HASH.parquet   consecutive rows of the source, laid out as `export` has them
    DIR/rejects.jsonl               the rows that were refused, or kept without their picture

A part's name follows from what is in it, so that no part is there twice.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from kinshelf.db.errors import EmptySource, UnfinishedParts, UnreadableSource
from kinshelf.db.formats.parquet import ParquetSource
from kinshelf.db.product import FIRST, pooled_by

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kinshelf.db.formats.source import BadRow

NAME = "parts.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class PartEntry:
    """One part: its file's name and size in bytes, and how many products it holds."""

    name: str
    products: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PartsManifest:
    """The content of a folder. `dimension` is that of one modality; `canary` see
    `store.encode.canary`.

    Of the source's `rows` data rows `products` are in the parts and `rejected` are not;
    `image_failed` products are known by their text alone. The counts and `parts` are those of
    a folder that is `finished`.
    """

    source: str
    encoder: str
    revision: str | None
    fingerprint: str
    dimension: int
    precision: str
    part_rows: int
    canary: dict[str, str] | None = None
    pictures: str = FIRST
    finished: bool = False
    rows: int = 0
    products: int = 0
    rejected: int = 0
    image_failed: int = 0
    parts: tuple[PartEntry, ...] = ()
    format: int = FORMAT

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The manifest of a folder. Raises UnreadableSource if damaged or of a later format."""
        path = directory / NAME
        try:
            values = json.loads(path.read_bytes())
            if values["format"] > FORMAT:
                raise UnreadableSource(f"{path} was written by a later version: update kinshelf")
            return cls(**values | {"parts": tuple(PartEntry(**p) for p in values["parts"])})
        except (OSError, ValueError, TypeError, KeyError) as problem:
            message = f"{path} cannot be read ({problem!r}): encode into a new folder"
            raise UnreadableSource(message) from problem

    @property
    def space(self) -> str:
        """As a shelf's fingerprint: what made the embeddings, and of which pictures."""
        return pooled_by(self.fingerprint, self.pictures)

    def dump(self) -> bytes:
        """Serialise to the JSON that `read` takes."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False).encode()

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def identity(self) -> dict[str, Any]:
        """The encoder's entry in a shelf's manifest."""
        names = ("fingerprint", "dimension", "precision", "canary", "pictures")
        return {name: getattr(self, name) for name in names}


def parts_of(directory: Path) -> PartsManifest | None:
    """The manifest of a finished folder, None for a folder of another kind, or no folder.

    Raises:
        UnfinishedParts: the encoding was not finished.
        UnreadableSource: the manifest is damaged, or a part is missing or cut short.
    """
    if not (directory / NAME).is_file():
        return None
    manifest = PartsManifest.read(directory)
    if not manifest.finished:
        raise UnfinishedParts(
            f"{directory} is not finished: run the same `kinshelf encode` again, it goes on where"
            " it stopped"
        )
    for part in manifest.parts:
        _check(directory / part.name, part.bytes)
    return manifest


def _check(path: Path, size: int) -> None:
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        what = "is missing" if found is None else f"has {found} bytes, not {size}"
        raise UnreadableSource(
            f"{path} {what}: delete it and run the same `kinshelf encode` again, or copy it anew"
        )


class PartsSource:
    """The products of a finished folder as `db.formats.source.RowSource`, part by part."""

    from_text = False

    def __init__(self, path: Path, manifest: PartsManifest) -> None:
        """Look at the first part.

        Raises:
            EmptySource: no part holds a product.
            UnreadableSource: the first part is damaged.
        """
        self._files = [path / part.name for part in manifest.parts if part.products]
        self.manifest = manifest
        if not self._files:
            raise EmptySource(f"{path} holds no products: every row of its source was rejected")
        self.columns: Sequence[str] = ParquetSource(self._files[0]).columns

    def rows(self, wanted: Collection[str] | None = None) -> Iterator[dict[str, object] | BadRow]:
        """Each product as column → value. See `db.formats.parquet.ParquetSource`."""
        for file in self._files:
            yield from ParquetSource(file).rows(wanted)

    def count(self) -> int:
        """The number of products."""
        return self.manifest.products
