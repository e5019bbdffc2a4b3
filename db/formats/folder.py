"""A folder of pictures: each file a product, each sub-folder a category."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kinshelf.db.errors import EmptySource, ImageRejected, UnreadableSource
from kinshelf.db.formats.source import BadRow
from kinshelf.db.images.decode import image_format
from kinshelf.db.layouts.guess import is_split
from kinshelf.db.text import clean_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}
)
"""What counts as a picture, by name alone; ingest looks inside."""


class FolderSource:
    """The pictures under a folder, in sorted order: first its own, then those of each sub-folder.

    The id is the path below the folder without the suffix, the category the folders on that path
    joined by " | "; a picture directly in the folder has none. Where all folders directly in it are
    named as splits (train, val, test), they are the split and no category. Of two pictures whose
    names differ in their suffix alone the later keeps it in its id. A file counts as a picture by
    its suffix or, where that states nothing, by its first bytes; any other file, and a link to a
    folder, is a bad row, so that it is counted. Hidden files and folders are passed over.
    """

    from_text = True

    def __init__(self, path: Path) -> None:
        """Look for a first picture.

        Raises:
            EmptySource: there is none.
            UnreadableSource: the folder may not be listed.
        """
        self._path = path
        self._has_splits = _holds_splits(path)
        names = ("id", "category", "image")
        self.columns: Sequence[str] = (*names, "split") if self._has_splits else names
        if next(self._pictures(), None) is None:
            raise EmptySource(
                f"the folder {path} holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))})"
            )

    def rows(self, wanted: Collection[str] | None = None) -> Iterator[dict[str, object] | BadRow]:
        """id, category and absolute image path of each picture."""
        taken: set[str] = set()
        for picture in self._files():
            place = picture.relative_to(self._path)
            if clean_key(str(place)) != str(place):
                yield BadRow(
                    f"{str(place)!a}: the name is not UTF-8, holds control characters, or "
                    "begins or ends with a space: rename the file"
                )
                continue
            if picture.is_dir():
                yield BadRow(f"{place}: a link to a folder, which is not followed: add that folder")
                continue
            if not _is_picture(picture):
                yield BadRow(f"{place}: no picture of a format that can be read")
                continue
            stem = place.with_suffix("").as_posix()
            name = place.as_posix() if stem in taken else stem
            taken.add(stem)
            folders = place.parts[:-1]
            row: dict[str, object] = {"split": folders[0]} if self._has_splits else {}
            category = " | ".join(folders[len(row) :])
            yield row | {"id": name, "category": category, "image": str(picture.absolute())}

    def count(self) -> int | None:
        """The number of pictures."""
        return sum(1 for _ in self._pictures())

    def _pictures(self) -> Iterator[Path]:
        return filter(_is_picture, self._files())

    def _files(self) -> Iterator[Path]:
        """Every file, and links to folders, which are not followed; hidden ones left out."""
        for folder, folders, files in os.walk(self._path, onerror=_refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links = [name for name in folders if Path(folder, name).is_symlink()]
            for name in sorted([*files, *links]):
                if not name.startswith("."):
                    yield Path(folder, name)


def _holds_splits(path: Path) -> bool:
    """Whether the folder's own folders are named as splits, and no picture lies beside them."""
    try:
        entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    except OSError as problem:
        raise _refusal(problem) from problem
    folders = [entry.name for entry in entries if entry.is_dir()]
    beside = any(entry.suffix.casefold() in IMAGE_SUFFIXES for entry in entries)
    return not beside and is_split(folders)


def _is_picture(path: Path) -> bool:
    """By its suffix; without one that is known, by its first bytes."""
    if path.suffix.casefold() in IMAGE_SUFFIXES:
        return not path.is_dir()
    try:
        with path.open("rb") as file:
            image_format(file.read(64))
    except (OSError, ImageRejected):
        return False
    return True


def _refuse(problem: OSError) -> None:
    raise _refusal(problem) from problem


def _refusal(problem: OSError) -> UnreadableSource:
    return UnreadableSource(f"{problem.filename} cannot be listed: {problem.strerror}")
