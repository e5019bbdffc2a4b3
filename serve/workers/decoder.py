"""The process that decodes pictures: `python -m kinshelf.serve.workers.decoder LIMITS`.

It answers the messages of `child.Channel`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import ImageRejected
from kinshelf.db.images import decode
from kinshelf.serve.workers.child import Dead, to_parent
from kinshelf.store.encode.image_processor import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    Answer = tuple[dict[str, Any], bytes]

_QUALITY = 80
_WATCH = 0.01
"""Seconds between two looks at the memory, where the system does not limit it."""


def _limit(memory: int) -> None:
    """No more memory than that, no files written, no core of what somebody sent."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        enforced = sys.platform == "linux"  # macOS takes the limit and does nothing with it
    except (ImportError, ValueError, OSError):
        enforced = False
    if not enforced:
        import psutil

        watched = (psutil.Process(), memory)
        threading.Thread(target=_end_beyond, args=watched, daemon=True).start()


def _end_beyond(process: Any, memory: int) -> None:
    """End this process when it has more memory than that."""
    while process.memory_info().rss <= memory:
        time.sleep(_WATCH)
    os._exit(1)


def _answer(head: Mapping[str, Any], data: bytes) -> Answer:
    picture = decode.decode_image(data)
    if head["do"] == "thumbnail":
        return {}, _thumbnail(picture, int(head["side"]))
    if head["do"] == "check":
        return {}, b""
    if head["how"] is not None:
        pixels = Preprocessing.of(head["how"]).pixels(picture)
        return {"height": pixels.shape[0], "width": pixels.shape[1]}, pixels.tobytes()
    return {"height": picture.height, "width": picture.width}, picture.tobytes()


def _thumbnail(picture: Image.Image, side: int) -> bytes:
    picture.thumbnail((side, side))
    file = BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def main(limits: Mapping[str, int]) -> None:
    """Answer messages until there are no more."""
    parent = to_parent()
    decode.MAX_PIXELS = min(decode.MAX_PIXELS, limits["pixels"])
    _limit(limits["memory"])
    with suppress(Dead):
        while True:
            head, data = parent.receive()
            try:
                reply, raw = _answer(head, data)
            except ImageRejected as error:
                reply, raw = {"reason": error.reason, "message": str(error)}, b""
            parent.send(reply, raw)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
