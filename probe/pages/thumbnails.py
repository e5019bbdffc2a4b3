"""Small copies of pictures as data URIs, so that a page needs no other file and no network."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from kinshelf.db.errors import ImageRejected

if TYPE_CHECKING:
    from kinshelf.db.images.cache import ImageCache

SIDE = 160
"""Pixels of the longer side."""

_QUALITY = 72


def data_uri(jpeg: bytes) -> str:
    """A picture as the `src` of an `img`, so that no other file is needed."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


class Thumbnails:
    """Thumbnails of products' pictures: local files, and URLs that the shelf has downloaded.

    Pictures are decoded and encoded anew: nothing of a file but its pixels gets into a page.
    """

    def __init__(self, cache_directory: Path) -> None:
        self._directory = cache_directory
        self._cache: ImageCache | None = None
        self._made: dict[str, tuple[str | None, str]] = {}

    def uri(self, image: str | None) -> str | None:
        """`data:image/jpeg;base64,...`, or None where the picture cannot be shown."""
        return self._look(image)[0]

    def problem(self, image: str | None) -> str:
        """Why there is no thumbnail, in a few words; "" if there is one."""
        return self._look(image)[1]

    def _look(self, image: str | None) -> tuple[str | None, str]:
        if not image:
            return None, "no picture"
        if image not in self._made:
            self._made[image] = self._make(image)
        return self._made[image]

    def _make(self, image: str) -> tuple[str | None, str]:
        from kinshelf.db.images.decode import decode_image, read_image_file

        path = self._path(image)
        if path is None:
            return None, "picture not downloaded"
        try:
            picture = decode_image(read_image_file(path))
        except ImageRejected as error:
            return None, f"picture {error.reason.replace('-', ' ')}"
        picture.thumbnail((SIDE, SIDE))
        file = BytesIO()
        picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
        return data_uri(file.getvalue()), ""

    def _path(self, image: str) -> Path | None:
        from kinshelf.store.ingest.pictures import is_url

        if not is_url(image):
            return Path(image)
        if self._cache is None:
            from kinshelf.db.images.cache import ImageCache

            self._cache = ImageCache(self._directory)
        cached = self._cache.get(image)
        return cached.path if cached else None
