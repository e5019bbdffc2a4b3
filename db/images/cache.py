"""Downloaded images on disk: files named by what is in them, and a log of where they came from.

    DIRECTORY/ab/abcdef….jpg     the bytes, under the first two digits of their `content_hash`
    DIRECTORY/urls.jsonl         one line a download: {"url", "hash", "suffix", "etag", "modified",
                                 "crc"}

A file is complete as soon as it has its name, whatever happens to the machine. The log is only
appended to; a line that is torn or damaged is passed over, and that URL is downloaded again. No
line is needed to find a picture that was sent: its URL, `upload://HASH`, names its content.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kinshelf.db.errors import ImageRejected, ShelfDamaged, ShelfError
from kinshelf.db.files import open_regular, read_around, read_bytes, reading
from kinshelf.db.images.decode import SUFFIXES, content_hash, image_format
from kinshelf.db.logs import tolerated

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

LOG_NAME = "urls.jsonl"
UPLOAD = "upload://"
"""The URL of a picture that came as bytes: what follows is the hash of its content."""
_HASH = re.compile(r"[0-9a-f]{32}")
_TEMPORARY = ".tmp-"


Validators = tuple[str | None, str | None]
"""The ETag and the Last-Modified of a download."""


@dataclass(frozen=True, slots=True)
class CachedImage:
    """An image file in the cache; `content_hash` is that of the file's bytes."""

    path: Path
    content_hash: str


class ImageCache:
    """The cache in one directory, such as a shelf's `images/`; it is made by the first `put`.

    May be shared by threads. Several processes may read; one should write.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self._log = self.directory / LOG_NAME
        self._paths: dict[str, Path] = {}
        self._validators: dict[str, Validators] = {}
        self._log_read = 0
        self._lock = threading.Lock()

    def get(self, url: str) -> CachedImage | None:
        """The image last stored for `url`, or None if there is none or its file is gone."""
        if url.startswith(UPLOAD) and (sent := self.by_hash(url.removeprefix(UPLOAD))):
            return sent
        with self._lock:
            self._read_log()
            path = self._paths.get(url)
        return CachedImage(path, path.stem) if path is not None and _is_file(path) else None

    def by_hash(self, digest: str) -> CachedImage | None:
        """The image of a content hash, whatever it was stored for; None if its file is gone."""
        if _HASH.fullmatch(digest):
            for suffix in dict.fromkeys(SUFFIXES.values()):
                if _is_file(path := self._path(digest, suffix)):
                    return CachedImage(path, digest)
        return None

    def validators(self, url: str) -> Validators:
        """The headers of the version last stored for `url`: ETag and Last-Modified."""
        with self._lock:
            self._read_log()
            return self._validators.get(url, (None, None))

    def put(
        self, url: str, data: bytes, etag: str | None = None, modified: str | None = None
    ) -> CachedImage:
        """Store an image's bytes for `url`; equal bytes are kept once.

        Returns once the file would survive a power loss. Raises ImageRejected if the bytes do not
        begin like a supported image, OSError if the disk refuses.
        """
        digest, suffix = content_hash(data), SUFFIXES[image_format(data)]
        path = self._path(digest, suffix)
        if not _renewed(path, data):
            _write_durably(path, data)
        with self._lock:
            entry = {"url": url, "hash": digest, "suffix": suffix, "etag": etag}
            self._append(entry | ({"modified": modified} if modified else {}))
            self._paths[url], self._validators[url] = path, (etag, modified)
        return CachedImage(path, digest)

    def verify(self) -> Iterator[tuple[Path, str]]:
        """Every file in the cache whose content does not match its name, with the reason.

        Such a file may simply be deleted: its URL is then downloaded again.
        """
        for path in sorted(self.directory.glob("??/*")):
            problem = _problem(path)
            if problem is not None:
                yield path, problem
        if self._log.exists() and read_around(self._log)[1]:
            yield self._log, "cannot be read"

    def drop_unused(self, urls: Set[str], hashes: Set[str], before: float) -> tuple[int, int]:
        """Delete the files that belong to none of `urls` or `hashes` and were stored before a time.

        `before` is in seconds as `time.time` gives them: what was stored of late may belong to a
        product that is yet to come. Returns how many files went, and their bytes.
        """
        with self._lock:
            self._read_log()
            used = {path.stem for url, path in self._paths.items() if url in urls} | hashes
        used |= {url.removeprefix(UPLOAD) for url in urls if url.startswith(UPLOAD)}
        count = size = 0
        for path in filter(_is_ours, self.directory.glob("??/*")):
            with tolerated(OSError, room="db", then=f"{path} goes next time"):
                if path.stem not in used and (length := _dropped(path, before)) is not None:
                    count, size = count + 1, size + length
        return count, size

    def _path(self, digest: str, suffix: str) -> Path:
        return self.directory / digest[:2] / (digest + suffix)

    def _read_log(self) -> None:
        # Only whole lines, and only those not read yet: another process may be appending.
        with (
            contextlib.suppress(FileNotFoundError),
            tolerated(ShelfDamaged, room="db", then="pictures are downloaded again"),
            reading(self._log) as log,
        ):
            log.seek(self._log_read)
            lines = log.read()
            end = lines.rfind(b"\n") + 1
            self._log_read += end
            for line in lines[:end].splitlines():
                self._take(line)

    def _take(self, line: bytes) -> None:
        # A log that came with a shelf from elsewhere must not name files outside the cache.
        try:
            entry = json.loads(line)
            url, digest, suffix = entry["url"], entry["hash"], entry["suffix"]
            whole = "crc" not in entry or entry.pop("crc") == _checksum(entry)
            if whole and _HASH.fullmatch(digest) and suffix in SUFFIXES.values():
                self._paths[url] = self._path(digest, suffix)
                etag, modified = entry.get("etag"), entry.get("modified")
                self._validators[url] = (_text(etag), _text(modified))
        except (ValueError, TypeError, KeyError, RecursionError):
            return

    def _append(self, entry: dict[str, str | None]) -> None:
        line = json.dumps(entry | {"crc": _checksum(entry)}).encode() + b"\n"
        fd = open_regular(self._log, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        with os.fdopen(fd, "ab+") as log:
            end = log.seek(0, os.SEEK_END)
            if end:
                log.seek(end - 1)
                last = b""
                with contextlib.suppress(OSError):
                    last = log.read(1)
                line = line if last == b"\n" else b"\n" + line
            log.write(line)


def _text(value: object) -> str | None:
    """A header's value of a log that may come from elsewhere; None where it is none."""
    return value if isinstance(value, str) and value.isascii() and value.isprintable() else None


def _checksum(entry: dict[str, str | None]) -> int:
    return zlib.crc32(json.dumps(entry, sort_keys=True).encode())


def _is_ours(path: Path) -> bool:
    named = _HASH.fullmatch(path.stem) is not None and path.suffix in SUFFIXES.values()
    return _is_file(path) and (named or path.name.startswith(_TEMPORARY))


def _is_file(path: Path) -> bool:
    """Whether it is a file of the cache itself, not a link to one elsewhere."""
    return path.is_file() and not path.is_symlink() and not path.parent.is_symlink()


def _renewed(path: Path, data: bytes) -> bool:
    """Whether it holds these bytes; `drop_unused` then takes it for one that was stored now."""
    try:
        there = _is_file(path) and path.stat().st_size == len(data) and read_bytes(path) == data
        if there:
            os.utime(path)
    except (FileNotFoundError, PermissionError):  # dropped meanwhile, or another user's
        return False
    return there


def _dropped(path: Path, before: float) -> int | None:
    """Its bytes; None where it was stored, maybe once more, since `before`."""
    if path.stat().st_mtime >= before:
        return None
    # Without its name nobody renews it, so that its age then decides.
    aside = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    path.replace(aside)
    status = aside.stat()
    if status.st_mtime >= before:
        aside.replace(path)
        return None
    aside.unlink()
    return status.st_size


def _write_durably(path: Path, data: bytes) -> None:
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        _sync_directory(path.parents[1])
        _sync_directory(path.parents[2])
    # Two threads or processes may be storing the same bytes: each writes a file of its own.
    writer = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f"{_TEMPORARY}{writer}-{path.name}")
    try:
        temporary.unlink(missing_ok=True)  # of a killed process with the same number
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":  # a directory cannot be opened there
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _problem(path: Path) -> str | None:
    if path.name.startswith(_TEMPORARY):
        return "left over from an interrupted download"
    try:
        data = read_bytes(path)
        expected = content_hash(data) + SUFFIXES[image_format(data)]
    except FileNotFoundError:  # dropped meanwhile, by a compaction
        return None
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ImageRejected, ShelfError) as refused:
        return str(refused)
    return None if path.name == expected else "its content does not match its name"
