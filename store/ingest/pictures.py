"""Pictures on their way into the shelf: bytes, their hash, or the reason why there are none."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from kinshelf.db.errors import ImageRejected
from kinshelf.db.images.cache import UPLOAD
from kinshelf.db.threads import threads as cores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kinshelf.db.images.download import Downloader
    from kinshelf.store.encode.encoder import Encoder

    Pixels = NDArray[np.uint8]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.I | re.A)
"""Of two letters or more, as one may be a drive. urlsplit raises for some that are no URL."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A product's picture: `data` and `content_hash`, or `error`; `path` is where it lies."""

    path: Path | None = None
    data: bytes | None = None
    content_hash: str | None = None
    error: ImageRejected | None = None


def is_url(image: str) -> bool:
    """Whether an image value is to be fetched rather than read (any scheme: some are refused)."""
    return "://" in image and _SCHEME.match(image) is not None


def read_pictures(
    images: Sequence[str | None], downloader: Downloader | None, refresh: Set[str] = frozenset()
) -> list[Picture | None]:
    """Bytes of every picture of a batch, None where a product names none.

    `refresh`: the URLs whose cached picture is compared with what the server has now.
    """
    urls = {image for image in images if image and is_url(image)}
    fetched = dict(_fetch(urls, downloader, refresh)) if urls and downloader else {}
    return [None if not image else fetched.get(image) or _read(Path(image)) for image in images]


def _fetch(
    urls: set[str], downloader: Downloader, refresh: Set[str]
) -> Iterator[tuple[str, Picture]]:
    for url, result in downloader.fetch_many(sorted(urls), refresh):
        if isinstance(result, ImageRejected):
            yield url, Picture(error=_no_picture(url) if url.startswith(UPLOAD) else result)
        else:
            yield url, _read(result.path)


def _no_picture(url: str) -> ImageRejected:
    return ImageRejected(
        "not-an-image", f"the bytes of {url} are no picture that can be read, or no longer kept"
    )


def _read(path: Path) -> Picture:
    from kinshelf.db.images.decode import content_hash, read_image_file

    try:
        data = read_image_file(path)
    except ImageRejected as error:
        return Picture(path, error=error)
    return Picture(path, data, content_hash(data))


class Remembered:
    """The embeddings of the last inputs met, by text or content hash: none is encoded twice."""

    def __init__(self, limit: int = 4096) -> None:
        self._rows: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._limit = limit

    def get(self, key: str) -> NDArray[np.float32] | None:
        """The embedding, (d,) float32, or None if it is not known (any more)."""
        if (row := self._rows.get(key)) is not None:
            self._rows.move_to_end(key)
        return row

    def put(self, key: str, row: NDArray[np.float32]) -> None:
        """Remember a copy: a view would keep its whole batch alive."""
        self._rows[key] = row.copy()
        if len(self._rows) > self._limit:
            self._rows.popitem(last=False)


@runtime_checkable
class DecodesItself(Protocol):
    """An encoder that wants a picture's bytes, as one whose pictures another process decodes."""

    def preprocess_data(self, data: bytes) -> Pixels:
        """Preprocess the picture in `data` like `Encoder.preprocess`. Raises ImageRejected."""


def preprocess(encoder: Encoder, data: bytes) -> Pixels:
    """Model-ready pixels of a picture's bytes. Raises ImageRejected."""
    from kinshelf.db.images.decode import decode_image

    if isinstance(encoder, DecodesItself):
        return encoder.preprocess_data(data)
    return encoder.preprocess(decode_image(data))


class Preprocessor:
    """Decodes and resizes pictures for an encoder on a few threads, by default one a core.

    `images` and `texts` are what was encoded since it was made.
    """

    def __init__(self, encoder: Encoder, threads: int | None = None) -> None:
        self._encoder = encoder
        self.images, self.texts = Remembered(), Remembered()
        self._pool = ThreadPoolExecutor(threads or cores(), thread_name_prefix="kinshelf-decode")
        self._ahead: dict[str, Future[Pixels | ImageRejected]] = {}

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def run(self, pictures: Sequence[bytes]) -> list[Pixels | ImageRejected]:
        """Model-ready pixels for each, or why it cannot be used."""
        return list(self._pool.map(self._one, pictures))

    def begin(self, pictures: Mapping[str, bytes]) -> None:
        """Start on pictures, by content hash, that `take` or `drop` will be called for."""
        for name, data in pictures.items():
            if name not in self._ahead:
                self._ahead[name] = self._pool.submit(self._one, data)

    def take(self, pictures: Mapping[str, bytes]) -> dict[str, Pixels | ImageRejected]:
        """Return pictures like `run`, by content hash; work begun is not done again."""
        if len(pictures) == 1 and not self._ahead.keys() & pictures.keys():
            return {name: self._one(data) for name, data in pictures.items()}  # worth no thread
        self.begin(pictures)
        return {name: self._ahead.pop(name).result() for name in pictures}

    def drop(self, names: Iterable[str | None]) -> None:
        """Forget what was begun and not taken."""
        for name in names:
            if name in self._ahead:
                self._ahead.pop(name).cancel()

    def _one(self, data: bytes) -> Pixels | ImageRejected:
        try:
            return preprocess(self._encoder, data)
        except ImageRejected as error:
            return error
