"""Sources that are no files of this machine: standard input, web servers, object stores (fsspec).

They are copied to a temporary folder: a source is read more than once.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from kinshelf.db.errors import ImageRejected, InputError, SourceNotFound, UnreadableSource
from kinshelf.db.formats.open import suffix_of
from kinshelf.db.text import without_password

if TYPE_CHECKING:
    import httpcore

STDIN = "-"
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.I | re.A)
_WEB = frozenset({"http", "https"})
_SECONDS, _REDIRECTS, _CHUNK = 3600.0, 5, 2**20
"""For a whole file; how often a server may send us elsewhere; bytes copied at a time."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A copy at `path` of what `name` names; `base` is where its relative pictures are, or ""."""

    path: Path
    name: str
    base: str = ""

    def located(self, picture: str) -> str:
        """Where a picture is that was taken for one beside the copy."""
        beside = f"{self.path.parent}/"
        return self.base + picture.removeprefix(beside) if self._is_beside(picture) else picture

    def _is_beside(self, picture: str) -> bool:
        return bool(self.base) and picture.startswith(f"{self.path.parent}/")


def is_remote(source: object) -> bool:
    """Whether a source is standard input ("-") or a URL."""
    text = str(source)
    return text == STDIN or (isinstance(source, str) and _URL.match(text) is not None)


@contextlib.contextmanager
def fetched(source: str, *, allow_private_hosts: bool = False) -> Iterator[Fetched]:
    """A local copy of a source for as long as the context lasts.

    Private and loopback addresses of web servers are refused unless `allow_private_hosts`.
    Raises SourceNotFound, UnreadableSource, InputError.
    """
    with tempfile.TemporaryDirectory(prefix="kinshelf-source-") as folder:
        if source == STDIN:
            path = _spooled(Path(folder), sys.stdin.buffer)
            with _named_as("standard input", path):
                yield Fetched(path, "standard input")
            return
        shown = without_password(source)
        path = Path(folder, _basename(source))
        if source.partition(":")[0].casefold() in _WEB:
            _download(source, path, allow_private_hosts=allow_private_hosts)
        else:
            _copy(source, path)
        base = source[: source.rindex("/", 0, len(source.partition("?")[0])) + 1]
        path = _named(path)
        with _named_as(shown, path):
            yield Fetched(path, shown, base)


@contextlib.contextmanager
def _named_as(name: str, copy: Path) -> Iterator[None]:
    """Have errors name the source, and not the copy of it."""
    try:
        yield
    except InputError as problem:
        problem.args = (str(problem).replace(str(copy), name), *problem.args[1:])
        raise


def _spooled(folder: Path, stream: BinaryIO) -> Path:
    path = folder / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(stream, file, _CHUNK)
    return _named(path)


def _named(path: Path) -> Path:
    """The file with a suffix for what it begins with, where it has none."""
    if path.suffix:
        return path
    with path.open("rb") as file:
        suffix = suffix_of(file.read(4096))
    return path.rename(path.with_name(path.name + suffix))


def _basename(source: str) -> str:
    try:
        return posixpath.basename(urlsplit(source).path) or "source"
    except ValueError as problem:
        raise UnreadableSource(f"{source!a} is not a URL: {problem}") from problem


def _copy(source: str, path: Path) -> None:
    try:
        import fsspec

        with fsspec.open(source, "rb") as remote, path.open("wb") as local:
            shutil.copyfileobj(remote, local, _CHUNK)
    except ImportError as problem:
        raise InputError(
            f"{source} needs a package that is not here ({problem}): pip install fsspec, and for an"
            " object store its own package, such as s3fs or gcsfs"
        ) from problem
    except FileNotFoundError as problem:
        raise SourceNotFound(f"there is no file at {source}") from problem
    except (OSError, ValueError) as problem:
        raise UnreadableSource(f"{source} cannot be read: {problem}") from problem


def _download(source: str, path: Path, *, allow_private_hosts: bool) -> None:
    import httpcore

    from kinshelf.db.images.addresses import BUDGET, Budget
    from kinshelf.db.images.download import connection_pool

    token = BUDGET.set(Budget(_SECONDS, threading.Event()))
    try:
        with connection_pool(1, allow_private_hosts) as pool, path.open("wb") as file:
            _follow(pool, source, file)
    except ImageRejected as problem:
        raise UnreadableSource(_refused(source, problem)) from problem
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as problem:
        shown = without_password(source)
        raise UnreadableSource(f"{shown} cannot be read: {problem}") from problem
    finally:
        BUDGET.reset(token)


def _refused(source: str, problem: ImageRejected) -> str:
    remedy = " (--allow-private-hosts)" if problem.reason == "private-address" else ""
    return f"{without_password(source)} is not fetched: {problem}{remedy}"


def _follow(pool: httpcore.ConnectionPool, source: str, file: BinaryIO) -> None:
    import httpcore

    from kinshelf.db.images.addresses import check_url

    target = check_url(source)
    for _ in range(_REDIRECTS + 1):
        names: dict[bytes | str, bytes | str] = {
            "Host": target.netloc, "Accept-Encoding": "identity", "User-Agent": "kinshelf",
        }  # fmt: skip
        raw = httpcore.URL(
            scheme=target.raw_scheme, host=target.raw_host, port=target.port,
            target=target.raw_path,
        )  # fmt: skip
        with pool.stream("GET", raw, headers=names) as reply:
            location = dict(reply.headers).get(b"location") or dict(reply.headers).get(b"Location")
            if reply.status == 200:
                for chunk in reply.iter_stream():
                    file.write(chunk)
                return
            if reply.status not in range(301, 309) or location is None:
                if reply.status in (404, 410):
                    raise SourceNotFound(f"there is no file at {target}: HTTP {reply.status}")
                raise UnreadableSource(f"{target} is not available: HTTP {reply.status}")
            target = check_url(str(target.join(location.decode("utf-8", "replace"))))
    raise UnreadableSource(f"{source} redirects more than {_REDIRECTS} times")
