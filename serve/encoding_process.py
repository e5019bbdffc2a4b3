"""The process that encodes: `python -m kinshelf.serve.encoding_process`, frames on stdio.

The first frame names the shelf and its manifest, and is answered by what its encoder is.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from kinshelf.db.errors import KinshelfError
from kinshelf.serve.frames import read_frame, write_frame
from kinshelf.store.canary import load_encoder_of
from kinshelf.store.manifest import Manifest
from kinshelf.store.threads import share_memory

if TYPE_CHECKING:
    from kinshelf.store.encoder import Encoder

    Answer = tuple[dict[str, Any], bytes]

_AT_ONCE = 12
"""Questions that are worked on; the server sends no more batches than it has threads for."""


def _load(order: Mapping[str, Any]) -> tuple[Encoder, dict[str, Any]]:
    encoder = load_encoder_of(order["path"], Manifest(**order["manifest"]))
    told = {name: getattr(encoder, name) for name in ("name", "dimension", "fingerprint")}
    told["precision"] = getattr(encoder, "precision", None)
    return encoder, told | {"preprocessing": asdict(encoder.preprocessing)}  # type: ignore[attr-defined]


def _answer(encoder: Encoder, ask: Mapping[str, Any], data: bytes) -> Answer:
    if ask["do"] == "pixels":
        pixels = np.frombuffer(data, np.uint8).reshape(ask["shape"])
        return {}, encoder.encode_pixels(list(pixels)).tobytes()
    texts = json.loads(data)
    if ask["do"] == "texts":
        return {}, encoder.encode_texts(texts).tobytes()
    return {"count": encoder.count_truncated(texts)}, b""


class _Answers:
    """The way back, for several threads."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def send(self, number: int, told: Mapping[str, Any], data: bytes = b"") -> None:
        with self._lock, suppress(OSError):  # nobody is left to read it
            write_frame(self._pipe, {**told, "number": number}, data)

    def fail(self, number: int, error: Exception) -> None:
        if not isinstance(error, KinshelfError):
            sys.excepthook(type(error), error, error.__traceback__)
        self.send(number, {"error": type(error).__name__, "message": str(error)})


def main() -> None:
    """Load, then answer frames until there are no more."""
    # Whatever a library prints must not get between the frames.
    answers = _Answers(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    share_memory()
    threadpool_limits(1, user_api="blas")  # as in the server: see server.serve
    order, _ = read_frame(sys.stdin.buffer)
    try:
        encoder, told = _load(order)
    except Exception as error:  # noqa: BLE001 (the server is told)
        answers.fail(order["number"], error)
        return
    answers.send(order["number"], told)

    def work(ask: Mapping[str, Any], data: bytes) -> None:
        try:
            answers.send(ask["number"], *_answer(encoder, ask, data))
        except Exception as error:  # noqa: BLE001 (the server is told)
            answers.fail(ask["number"], error)

    with ThreadPoolExecutor(_AT_ONCE, "kinshelf-answer") as pool, suppress(EOFError):
        while True:
            pool.submit(work, *read_frame(sys.stdin.buffer))


if __name__ == "__main__":
    main()
