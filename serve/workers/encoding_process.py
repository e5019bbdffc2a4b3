"""The process that encodes: `python -m kinshelf.serve.workers.encoding_process`.

It answers the messages of `child.Channel`. The first names the shelf and its manifest, and is
answered by what its encoder is. Pictures come one a message and are gathered here, so that a batch
begins as soon as the one before it ends.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kinshelf.db.errors import KinshelfError
from kinshelf.db.host import take_over
from kinshelf.db.threads import threads
from kinshelf.serve.workers.batching import Batcher
from kinshelf.serve.workers.child import Channel, Dead, to_parent
from kinshelf.store.encode.canary import load_encoder_of
from kinshelf.store.log.manifest import Manifest

if TYPE_CHECKING:
    from kinshelf.store.encode.encoder import Encoder

Answer = tuple[dict[str, Any], bytes]

_AT_ONCE = 12
"""Questions but pictures that are worked on."""

_PATIENCE = 0.25
_THREADS = 8
"""That encode pictures at most. A batch for each core keeps it busy while other batches' requests
come and go; one batch over all cores would leave them idle meanwhile."""


def _load(order: Mapping[str, Any]) -> tuple[Encoder, dict[str, Any]]:
    encoder = load_encoder_of(order["path"], Manifest(**order["manifest"]))
    reply = {name: getattr(encoder, name) for name in ("name", "dimension", "fingerprint")}
    reply["precision"] = getattr(encoder, "precision", None)
    return encoder, reply | {"preprocessing": asdict(encoder.preprocessing)}  # type: ignore[attr-defined]


def _answer(encoder: Encoder, head: Mapping[str, Any], data: bytes) -> Answer:
    texts = json.loads(data)
    if head["do"] == "texts":
        return {}, encoder.encode_texts(texts).tobytes()
    return {"count": encoder.count_truncated(texts)}, b""


class _Answers:
    """The way back."""

    def __init__(self, parent: Channel) -> None:
        self._parent = parent

    def send(self, numbers: Sequence[int], reply: Mapping[str, Any], data: bytes = b"") -> None:
        """To several questions at once: each gets its share of the bytes."""
        with suppress(Dead):  # the server has ended, and this process ends next
            self._parent.send({**reply, "numbers": numbers}, data)

    def fail(self, numbers: Sequence[int], error: Exception) -> None:
        if not isinstance(error, KinshelfError):
            sys.excepthook(type(error), error, error.__traceback__)
        self.send(numbers, {"error": type(error).__name__, "message": str(error)})

    def give(self, numbers: Sequence[int], work: Callable[[], Answer]) -> None:
        """Send what `work` gives, or what it raises."""
        try:
            reply, data = work()
        except Exception as error:  # noqa: BLE001 (reported to the server)
            self.fail(numbers, error)
        else:
            self.send(numbers, reply, data)


_Asked = tuple[int, NDArray[np.uint8]]


def _gatherer(encoder: Encoder, answers: _Answers, largest: int) -> Batcher[_Asked, None]:
    """Encodes the pictures that are put into it, each with its question's number."""

    def work(batch: list[_Asked]) -> list[None]:
        numbers, pixels = zip(*batch, strict=True)
        reply = {"pictures": len(batch)}
        answers.give(numbers, lambda: (reply, encoder.encode_pixels(pixels).tobytes()))
        return [None] * len(batch)

    return Batcher(work, largest, threads=min(threads(), _THREADS), patience=_PATIENCE)


def main() -> None:
    """Load, then answer messages until there are no more."""
    parent = to_parent()
    answers = _Answers(parent)
    take_over()
    threadpool_limits(1, user_api="blas")  # as in the server: see server.serve
    order, _ = parent.receive()
    try:
        encoder, reply = _load(order)
    except Exception as error:  # noqa: BLE001 (reported to the server)
        answers.fail([order["number"]], error)
        return
    answers.send([order["number"]], reply)
    pictures = _gatherer(encoder, answers, order["largest"])
    with ThreadPoolExecutor(_AT_ONCE, "kinshelf-answer") as pool, suppress(Dead):
        while True:
            head, data = parent.receive()
            if head["do"] == "pixels":
                pixels = np.frombuffer(data, np.uint8).reshape(head["shape"])
                pictures.put((head["number"], pixels))
            else:
                work = partial(_answer, encoder, head, data)
                pool.submit(answers.give, [head["number"]], work)
    pictures.close()


if __name__ == "__main__":
    main()
