"""Pictures and texts encoded elsewhere: one process that holds the model.

Encoding keeps every core busy. In the server's own process its threads and those that answer would
wait for each other at every step of the interpreter. Pictures that come at the same time it
gathers into batches itself, or a core would wait for the next one's way through two processes. One
that dies is begun anew, and what it was asked is asked once more; one that hangs is killed. It ends
when its standard input does, so also with a server that was killed.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kinshelf.db import errors
from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import EncoderError, EncoderMismatch, EncoderUnavailable, KinshelfError
from kinshelf.db.logs import report
from kinshelf.serve.base.errors import ShuttingDown
from kinshelf.serve.workers.child import Child, Dead
from kinshelf.store.encode.image_processor import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from kinshelf.store.log.manifest import Manifest

Pixels = NDArray[np.uint8]
_Question = tuple[Mapping[str, Any], bytes | memoryview]
_Answer = tuple[Any, bytes]

_PIPE = 2**20
"""Bytes that a pipe holds: a batch's pixels, so that neither side waits for the other."""

_END_SECONDS = 10.0
"""The time that a process has to finish its work when it receives a signal to end."""


class _Process(Child):
    """One life of the process. Any thread may ask; one of its own hands the answers out."""

    def __init__(self, seconds: float, on_batch: Callable[[int], None]) -> None:
        super().__init__("kinshelf.serve.workers.encoding_process", pipe=_PIPE)
        self.takes = True
        self._seconds, self._heard, self._on_batch = seconds, time.monotonic(), on_batch
        self._lock, self._numbers = threading.Lock(), itertools.count()
        self._waiting: dict[int, Future[_Answer]] = {}
        self._ended = threading.Event()
        threading.Thread(target=self._read, name="kinshelf-encoded", daemon=True).start()

    def load(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have it load the encoder; what that is. Raises EncoderError, or Dead."""
        reply: Mapping[str, Any] = _checked(self._question(order, b"").result())[0]
        threading.Thread(target=self._watch, name="kinshelf-watch", daemon=True).start()
        return reply

    def ask(self, questions: Iterable[_Question]) -> list[_Answer]:
        """Raises Dead, or what went wrong there."""
        under_way = [self._question(*question) for question in questions]
        return [_checked(answer.result()) for answer in under_way]

    def _watch(self) -> None:
        """Kill it where nobody who asks was answered for so long that it must hang.

        In a thread of its own: those that ask may be kept by the full pipe of one that hangs.
        """
        while not self._ended.wait(self._seconds / 10):
            if self._waiting and time.monotonic() - self._heard >= self._seconds:
                self.kill()

    def _question(self, head: Mapping[str, Any], data: bytes | memoryview) -> Future[_Answer]:
        answer: Future[_Answer] = Future()
        with self._lock:
            if not self.takes:
                raise Dead
            number = next(self._numbers)
            if not self._waiting:
                self._heard = time.monotonic()
            self._waiting[number] = answer
            try:
                self.send({**head, "number": number}, data)
            except Dead:  # then there is nothing to read either, and `answer` fails
                self.kill()
        return answer

    def _read(self) -> None:
        with suppress(Dead):
            while True:
                self._hand_out(*self.receive())
        self.kill()
        self.wait()
        self._ended.set()
        self.rest()
        self.close()
        for answer in self._waiting.values():
            answer.set_exception(Dead())

    def _hand_out(self, head: Mapping[str, Any], data: bytes) -> None:
        self._heard = time.monotonic()
        if "pictures" in head:
            self._on_batch(head["pictures"])
        numbers = head["numbers"]
        share = len(data) // len(numbers)
        for i, number in enumerate(numbers):
            self._waiting.pop(number).set_result((head, data[i * share : (i + 1) * share]))

    def rest(self) -> None:
        """Ask nothing more; it ends when it has answered what it was asked."""
        with self._lock:
            self.takes = False
            self.finish()

    def end(self) -> None:
        """End it when it has answered, or when it takes too long to; wait until it has ended."""
        late = threading.Timer(_END_SECONDS, self.kill)
        late.start()
        self.rest()
        self.wait()
        late.cancel()


class EncoderProcess:
    """`store.encode.encoder.Encoder` of the shelf at `path`, for many threads at once.

    Pictures of any thread are encoded together, at most `largest` a batch, of which `on_batch` is
    reported. One that answers nobody for `seconds` is killed. Raises EncoderUnavailable or
    EncoderMismatch, as `store.encode.canary.load_encoder_of` does.
    """

    def __init__(
        self,
        path: Path | str,
        manifest: Manifest,
        *,
        largest: int = 32,
        seconds: float = 60.0,
        on_batch: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self._order = {"path": str(path), "manifest": asdict(manifest), "largest": largest}
        self._seconds, self._on_batch = seconds, on_batch
        self._lock, self._closed = threading.Lock(), False
        self._count, self._askers, self._rests = threading.Lock(), 0, False
        self._process, reply = self._begin()
        self.name, self.dimension = str(reply["name"]), int(reply["dimension"])
        self.fingerprint, self.precision = str(reply["fingerprint"]), reply["precision"]
        self.preprocessing = Preprocessing.of(reply["preprocessing"])

    @property
    def pid(self) -> int:
        """The id of the process that was started last."""
        return self._process.pid

    def preprocess(self, image: Image.Image) -> Pixels:
        """As `Encoder.preprocess`; here, as it needs no model."""
        return self.preprocessing.pixels(image)

    def encode_pixels(self, pixels: Sequence[Pixels]) -> FloatArray:
        """Unit rows, (n, d) float32, of n results of `preprocess`. Raises EncoderError."""
        if not len(pixels):
            return np.empty((0, self.dimension), np.float32)
        questions = [
            ({"do": "pixels", "shape": each.shape}, np.ascontiguousarray(each).data)
            for each in pixels
        ]
        return self._rows(self._ask(*questions))

    def encode_images(self, images: Sequence[Image.Image]) -> FloatArray:
        """Unit rows, (n, d) float32. Raises EncoderError."""
        return self.encode_pixels([self.preprocess(image) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Unit rows, (n, d) float32. Raises EncoderError."""
        return self._rows(self._ask(({"do": "texts"}, json.dumps(list(texts)).encode())))

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Count the texts that are longer than the encoder reads. Raises EncoderError."""
        reply, _ = self._ask(({"do": "count"}, json.dumps(list(texts)).encode()))[0]
        return int(reply["count"])

    def _rows(self, answers: Sequence[_Answer]) -> FloatArray:
        data = b"".join(rows for _, rows in answers)
        return np.frombuffer(data, np.float32).reshape(-1, self.dimension)

    def _ask(self, *questions: _Question) -> list[_Answer]:
        with self._asking():
            for _ in range(2):
                try:
                    return self._living().ask(questions)
                except Dead as error:
                    report("serve", "the process that encodes ended and is begun anew", error)
        raise EncoderUnavailable(
            "the process that encodes ended twice at this: its log or the system's has the reason"
            " (often too little memory)"
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """The last one to be answered ends the process of an encoder that rests."""
        with self._count:
            self._askers += 1
        try:
            yield
        finally:
            with self._count:
                self._askers -= 1
                last = self._rests and not self._askers
            if last:
                self._process.rest()

    def _living(self) -> _Process:
        with self._lock:
            if self._closed:
                raise ShuttingDown("the server is shutting down")
            if not self._process.takes:
                self._process, reply = self._begin()
                if reply["fingerprint"] != self.fingerprint:
                    self._process.rest()
                    raise EncoderMismatch(f"the files of {self.name} have changed: start anew")
            return self._process

    def _begin(self) -> tuple[_Process, Mapping[str, Any]]:
        try:
            process = _Process(self._seconds, self._on_batch)
            return process, self._loaded(process)
        except Dead:
            raise EncoderUnavailable(
                "the process that encodes ended while it loaded: is there enough memory?"
            ) from None

    def _loaded(self, process: _Process) -> Mapping[str, Any]:
        try:
            return process.load(self._order)
        except KinshelfError:
            process.rest()
            raise

    def rest(self) -> None:
        """Run a process only during a request, as another encoder has taken its place."""
        with self._count:
            self._rests = True
            idle = not self._askers
        if idle:
            self._process.rest()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closed = True
        self._process.end()


def _checked(answer: _Answer) -> _Answer:
    reply = answer[0]
    if "error" not in reply:
        return answer
    kind = getattr(errors, reply["error"], None)
    if isinstance(kind, type) and issubclass(kind, EncoderError):
        raise kind(reply["message"])
    raise RuntimeError(f"the process that encodes: {reply['error']}: {reply['message']}")
