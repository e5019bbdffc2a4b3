"""Pictures that come with a request: bytes or a URL, never a path of this machine.

An uploaded picture of a product is kept in the shelf's `images/`, under a URL of its own kind
(`upload://HASH`), so that it is found again wherever the shelf is moved to.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kinshelf.db.errors import ImageRejected
from kinshelf.db.images.addresses import check_url
from kinshelf.db.images.cache import UPLOAD, ImageCache
from kinshelf.db.images.decode import content_hash, read_image_file
from kinshelf.db.images.download import Downloader
from kinshelf.db.logs import tolerated
from kinshelf.store.ingest.pictures import is_url

if TYPE_CHECKING:
    from kinshelf.serve.base.settings import ServeSettings
    from kinshelf.serve.workers.decoding import Decoders


class Pictures:
    """Fetches, checks and keeps pictures; safe to use from any thread."""

    def __init__(self, settings: ServeSettings, decoders: Decoders) -> None:
        self._settings, self._decoders = settings, decoders
        self._cache = ImageCache(settings.shelf / "images")
        self._folder = Path(tempfile.mkdtemp(prefix="kinshelf-serve-"))
        self._kept = self._downloader(self._cache)

    def _downloader(self, cache: ImageCache) -> Downloader:
        return Downloader(
            cache,
            timeout=self._settings.fetch_seconds,
            max_bytes=self._settings.max_body,
            allow_private_hosts=self._settings.allow_private_hosts,
            retries=1,
            check=self._decoders.check,
        )

    def fetched(self, url: str) -> bytes:
        """The bytes behind a URL, for a question; nothing is kept. Raises ImageRejected."""
        check_url(url)
        with (
            tempfile.TemporaryDirectory(dir=self._folder) as folder,
            self._downloader(ImageCache(Path(folder))) as downloader,
        ):
            return read_image_file(downloader.fetch(url).path)

    def keep_url(self, url: str) -> str:
        """Fetch a product's picture into the shelf. Returns its URL. Raises ImageRejected."""
        check_url(url)
        kept = self._kept.fetch(url)
        # Its time, or a compact that this add waits for might drop it meanwhile.
        with tolerated(OSError, room="serve", then=f"{kept.path} may be dropped as unused"):
            os.utime(kept.path)
        return url

    def keep_upload(self, data: bytes) -> str:
        """Keep a product's picture in the shelf. Returns its `upload://` URL.

        Raises ImageRejected if it is none that can be decoded.
        """
        self._decoders.check(data)
        name = UPLOAD + content_hash(data)
        self._cache.put(name, data)
        return name

    def thumbnail(self, image: str | None, side: int) -> bytes:
        """A JPEG of what a stored product names as its picture. Raises ImageRejected."""
        if not image:
            raise ImageRejected("no-picture", "the product has no picture")
        path = Path(image)
        if is_url(image):
            cached = self._cache.get(image)
            if cached is None:
                raise ImageRejected("missing-file", f"{image} is not in the shelf's images")
            path = cached.path
        return self._decoders.thumbnail(read_image_file(path), side)

    def close(self) -> None:
        """Close connections, and remove what is temporary."""
        self._kept.close()
        shutil.rmtree(self._folder, ignore_errors=True)
