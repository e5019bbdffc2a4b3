"""Sources and pictures that fsspec reads: object stores, HDFS, web servers."""

from __future__ import annotations

import contextlib
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kinshelf.db.errors import ClusterError, ImageRejected, SourceNotFound, UnreadableSource
from kinshelf.store.ingest.pictures import Picture, is_url, read_pictures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinshelf.db.images.download import Downloader

STORES = frozenset(
    {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "hdfs", "webhdfs", "memory"}
)
"""Schemes of pictures that fsspec reads; http and https go through `db.download`, which checks
addresses, and every other one is refused there."""

_WEB = ("http", "https")
_READERS = 8
_CHUNK = 2**20
_SECONDS = 60.0
"""Without a byte from a web server."""


def scheme_of(place: str) -> str:
    """ "s3" of "s3://bucket/key", "" of a path."""
    return place.partition(":")[0].casefold() if is_url(place) else ""


@contextlib.contextmanager
def local_copy(source: str) -> Iterator[tuple[Path, Callable[[str], str]]]:
    """A source as a local path, and a function that locates one of its pictures.

    A local source is itself; a remote file is copied to a temporary folder for as long as the
    context lasts. Raises SourceNotFound, UnreadableSource or ClusterError.
    """
    scheme = scheme_of(source)
    if not scheme:
        yield Path(source), str
        return
    if scheme not in STORES and scheme not in _WEB:
        known = ", ".join(sorted(STORES | set(_WEB)))
        raise UnreadableSource(f"{source}: {scheme}:// is not read; these are: {known}")
    with tempfile.TemporaryDirectory(prefix="kinshelf-") as folder:
        path = Path(folder, _basename(source))
        (_download if scheme in _WEB else _copy)(source, path)
        base = source[: source.rindex("/", 0, len(source.partition("?")[0])) + 1]
        yield path, lambda image: _outside(image, f"{folder}/", base)


def _basename(url: str) -> str:
    try:
        return posixpath.basename(urlsplit(url).path)
    except ValueError as problem:
        raise UnreadableSource(f"{url} is not a URL: {problem}") from problem


def _outside(image: str, folder: str, base: str) -> str:
    return base + image.removeprefix(folder) if image.startswith(folder) else image


def _copy(source: str, path: Path) -> None:
    try:
        with _opened(source) as remote, path.open("wb") as local:
            shutil.copyfileobj(remote, local, _CHUNK)
    except FileNotFoundError as problem:
        raise SourceNotFound(f"there is no file at {source}") from problem
    except OSError as problem:
        raise UnreadableSource(f"{source} cannot be read: {problem}") from problem


def _download(source: str, path: Path) -> None:
    import httpx

    try:
        with (
            httpx.stream("GET", source, follow_redirects=True, timeout=_SECONDS) as reply,
            path.open("wb") as local,
        ):
            reply.raise_for_status()
            for chunk in reply.iter_bytes(_CHUNK):
                local.write(chunk)
    except httpx.HTTPStatusError as problem:
        status = problem.response.status_code
        raise SourceNotFound(f"{source} is not available: HTTP {status}") from problem
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        raise UnreadableSource(f"{source} cannot be read: {problem}") from problem


def _opened(place: str) -> Any:
    """An open file of bytes. Raises OSError, or ClusterError where fsspec lacks a package."""
    try:
        import fsspec

        return fsspec.open(place, "rb").open()
    except ImportError as problem:
        raise ClusterError(
            f"{place} needs a package that is not here ({problem}): install kinshelf[cluster], and"
            " for an object store its own fsspec package, such as `pip install s3fs`"
        ) from problem


def read_any(images: Sequence[str | None], downloader: Downloader | None) -> list[Picture | None]:
    """Read pictures like `store.ingest.pictures`, from object stores too."""
    stored = {image for image in images if image and scheme_of(image) in STORES}
    rest = [None if image in stored else image for image in images]
    read = read_pictures(rest, downloader)
    if not stored:
        return read
    with ThreadPoolExecutor(min(_READERS, len(stored)), "kinshelf-fsspec") as pool:
        found = dict(zip(stored, pool.map(_picture, stored), strict=True))
    return [found.get(image or "", other) for image, other in zip(images, read, strict=True)]


def _picture(place: str) -> Picture:
    from kinshelf.db.images.decode import MAX_BYTES, content_hash

    try:
        with _opened(place) as remote:
            data = remote.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Picture(error=ImageRejected("missing-file", f"there is no picture at {place}"))
    except OSError as problem:
        return Picture(error=ImageRejected("unreadable", f"{place} cannot be read: {problem}"))
    if len(data) > MAX_BYTES:
        message = f"{place} has more than {MAX_BYTES} bytes"
        return Picture(error=ImageRejected("too-many-bytes", message))
    return Picture(None, data, content_hash(data))
