"""Frames between the server and its other processes: JSON and raw bytes, with their lengths."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

_HEAD = struct.Struct("<II")
_LARGEST = 512 * 2**20


def write_frame(pipe: IO[bytes], head: Mapping[str, Any], data: bytes | memoryview = b"") -> None:
    """Send one. Raises OSError where the other side is gone."""
    text = json.dumps(head).encode()
    pipe.write(_HEAD.pack(len(text), memoryview(data).nbytes) + text)
    pipe.write(data)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> tuple[Any, bytes]:
    """Receive one. Raises EOFError at the end, ValueError for what is no frame."""
    sizes = _HEAD.unpack(_exactly(pipe, _HEAD.size))
    if sum(sizes) > _LARGEST:
        raise ValueError("the frame is too large")
    return json.loads(_exactly(pipe, sizes[0])), _exactly(pipe, sizes[1])


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data
