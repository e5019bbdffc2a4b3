"""A folder of pictures: each file a product, each sub-folder a category."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kinshelf.db.errors import EmptySource, UnreadableSource
from kinshelf.db.sources.source import BadRow
from kinshelf.db.text import clean_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
)
"""What counts as a picture, by name alone; ingest looks inside."""


class FolderSource:
    """The pictures under a folder, in sorted order: first its own, then those of each sub-folder.

    The id is the path below the folder without the suffix, the category the folders on that path
    joined by " | "; a picture directly in the folder has none. Hidden files and folders and
    links to folders are passed over.
    """

    from_text = True
    columns: Sequence[str] = ("id", "category", "image")

    def __init__(self, path: Path) -> None:
        """Look for a first picture.

        Raises:
            EmptySource: there is none.
            UnreadableSource: the folder may not be listed.
        """
        self._path = path
        if next(self._pictures(), None) is None:
            raise EmptySource(
                f"the folder {path} holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))})"
            )

    def rows(self, wanted: Collection[str] | None = None) -> Iterator[dict[str, object] | BadRow]:
        """id, category and absolute image path of each picture."""
        for picture in self._pictures():
            place = picture.relative_to(self._path)
            if clean_key(str(place)) != str(place):
                yield BadRow(
                    f"{str(place)!a}: the name is not UTF-8, holds control characters, or "
                    "begins or ends with a space: rename the file"
                )
                continue
            yield {
                "id": place.with_suffix("").as_posix(),
                "category": " | ".join(place.parts[:-1]),
                "image": str(picture.absolute()),
            }

    def count(self) -> int | None:
        """The number of pictures."""
        return sum(1 for _ in self._pictures())

    def _pictures(self) -> Iterator[Path]:
        for folder, folders, files in os.walk(self._path, onerror=_refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if not name.startswith(".") and Path(name).suffix.casefold() in IMAGE_SUFFIXES:
                    yield Path(folder, name)


def _refuse(problem: OSError) -> None:
    raise UnreadableSource(f"{problem.filename} cannot be listed: {problem.strerror}") from problem
