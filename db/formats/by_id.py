"""Pictures that lie in a folder by the ids of their products."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path, PurePath

from kinshelf.db.errors import SourceNotFound
from kinshelf.db.formats.folder import IMAGE_SUFFIXES

_NUMBERED = re.compile(r"(?P<id>.+?)[ _.-]*(?:(?<=[ _.-])|\()(?P<number>\d{1,3})\)?", re.S)


class PicturesById:
    """The pictures of a folder and its sub-folders by id.

    Those of the id "A7" are A7.jpg, then A7_1.jpg, A7-2.jpg, A7 (3).jpg, unless that is the name of
    another product, and those in a folder A7. Memory: the names, some 200 bytes a picture.
    """

    def __init__(self, folder: Path) -> None:
        """List the folder. Raises SourceNotFound."""
        if not folder.is_dir():
            raise SourceNotFound(f"there is no folder of pictures at {folder}")
        self.folder = folder.absolute()
        self._exact: dict[str, list[str]] = defaultdict(list)
        self._numbered: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        self._within: dict[str, list[str]] = defaultdict(list)
        self._ids: Collection[str] = ()
        for place, folders, files in os.walk(self.folder):
            folders.sort()
            for name in sorted(files):
                path = PurePath(place, name)
                if path.suffix.casefold() in IMAGE_SUFFIXES:
                    self._take(path)

    def _take(self, path: PurePath) -> None:
        self._exact[path.stem].append(str(path))
        if found := _NUMBERED.fullmatch(path.stem):
            self._numbered[found["id"]].append((int(found["number"]), path.stem, str(path)))
        if path.parent != self.folder:
            self._within[path.parent.name].append(str(path))

    def keep_apart(self, ids: Collection[str]) -> None:
        """Give a picture that is named by another product's id to that product alone."""
        self._ids = ids

    def of(self, product_id: str) -> list[str]:
        """The absolute paths of a product's pictures, the main one first."""
        further = sorted(self._numbered.get(product_id, ()))
        found = [*self._exact.get(product_id, ())]
        found += [path for _, stem, path in further if stem not in self._ids]
        return list(dict.fromkeys([*found, *self._within.get(product_id, ())]))
