"""Embeddings of single pictures, of products that have several: changing one encodes one.

They are derived: what is lost or damaged is encoded again. Two files for an encoder, keys and
rows, of records of one length each; row i belongs to key i. 2 KiB a picture with 512 numbers.
"""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import ShelfDamaged
from kinshelf.db.files import open_regular, reading
from kinshelf.store.log import disk

if TYPE_CHECKING:
    from kinshelf.store.log.manifest import Manifest

FOLDER = "pictures"
_KEY = 16 + 4
"""Bytes of a key: the picture's content hash, and the CRC-32 of its row."""


class PictureVectors:
    """Unit embeddings, (d,) float32, by the content hashes of their pictures.

    One process writes, the one that holds the shelf's lock. Memory: some 150 bytes a picture.
    """

    def __init__(self, shelf: Path, manifest: Manifest) -> None:
        self._folder = shelf / FOLDER
        name = xxhash.xxh3_64_hexdigest((manifest.fingerprint or "").encode())
        self._keys, self._rows = (self._folder / f"{name}.{kind}" for kind in ("keys", "f32"))
        self._width = 4 * (manifest.dimension or 0)
        self._places: dict[bytes, tuple[int, int]] | None = None

    def get(self, digest: str) -> FloatArray | None:
        """The embedding of a picture, None where it is not known or was damaged."""
        if (found := self._known().get(bytes.fromhex(digest))) is None:
            return None
        place, checksum = found
        try:
            with reading(self._rows) as file:
                file.seek(place * self._width)
                data = file.read(self._width)
        except (OSError, ShelfDamaged):
            return None
        if len(data) < self._width or zlib.crc32(data) != checksum:
            return None
        return np.frombuffer(data, dtype=np.float32)

    def put(self, rows: Mapping[str, FloatArray]) -> None:
        """Keep embeddings that are not there yet."""
        known = self._known()
        new = {bytes.fromhex(digest): row.tobytes() for digest, row in rows.items()}
        new = {key: data for key, data in new.items() if key not in known}
        if not new or not self._width:
            return
        self._folder.mkdir(exist_ok=True)
        number = self._number()
        keys = [key + zlib.crc32(data).to_bytes(4, "little") for key, data in new.items()]
        _write(self._rows, b"".join(new.values()), number * self._width)  # a key promises its row
        _write(self._keys, b"".join(keys), number * _KEY)
        for place, (key, data) in enumerate(new.items(), start=number):
            known[key] = place, zlib.crc32(data)

    def keep(self, digests: Collection[str]) -> None:
        """Forget all but these, and what belongs to other encoders."""
        kept = {d: row for d in digests if (row := self.get(d)) is not None}
        if self._folder.is_symlink() or not self._folder.is_dir():
            return
        disk.remove_tree(self._folder)
        self._places = None
        self.put(kept)

    def _known(self) -> dict[bytes, tuple[int, int]]:
        if self._places is None:
            try:
                status = self._keys.stat()
            except OSError:
                self._places = {}
            else:
                key = status.st_ino, status.st_size, status.st_mtime_ns
                self._places = _places_of(self._keys, self._number(), key)
        return self._places

    def _number(self) -> int:
        """How many there are whole; what an interrupted write left behind is overwritten."""
        try:
            sizes = self._keys.stat().st_size // _KEY, self._rows.stat().st_size // self._width
        except (OSError, ZeroDivisionError):
            return 0
        return min(sizes)


@functools.lru_cache(maxsize=2)
def _places_of(keys: Path, number: int, _state: tuple[int, ...]) -> dict[bytes, tuple[int, int]]:
    """Place and checksum by key; read once for every query until the file is another."""
    try:
        with reading(keys) as file:
            data = file.read(number * _KEY)
    except (OSError, ShelfDamaged):
        return {}
    records = ((data[at : at + 16], data[at + 16 : at + _KEY]) for at in range(0, len(data), _KEY))
    return {
        key: (place, int.from_bytes(checksum, "little"))
        for place, (key, checksum) in enumerate(records)
    }


def _write(path: Path, data: bytes, offset: int) -> None:
    fd = open_regular(path, os.O_RDWR | os.O_CREAT)
    try:
        disk.write(fd, data, offset)
    finally:
        os.close(fd)
