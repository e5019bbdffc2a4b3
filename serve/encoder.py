"""One encoder for all requests: what comes at the same time is encoded as one batch.

`SharedEncoder` is an `Encoder` like any other, so classify, similar and add need not know. Its
pictures are decoded in other processes (`serve.decoding`).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinshelf.serve.errors import ShuttingDown

if TYPE_CHECKING:
    from kinshelf.serve.decoding import Decoders
    from kinshelf.store.encoder import Encoder

FloatArray = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class Batcher:
    """Gathers the items of many threads and lets one thread do them together.

    While a batch is worked on the next one fills, so nothing ever waits for company. `work` gets
    at most `largest` items and gives one row each, (n, d) float32.
    """

    def __init__(
        self,
        work: Callable[[list[Any]], FloatArray],
        largest: int,
        on_batch: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self._work, self._largest, self._on_batch = work, largest, on_batch
        self._waiting: queue.Queue[tuple[Any, Future[FloatArray]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="kinshelf-encode", daemon=True)
        self._closed = False
        self._thread.start()

    def rows(self, items: Sequence[Any]) -> FloatArray:
        """The rows of some items, (n, d) float32, in their order."""
        if self._closed:
            raise ShuttingDown("the server is shutting down")
        futures: list[Future[FloatArray]] = [Future() for _ in items]
        for entry in zip(items, futures, strict=True):
            self._waiting.put(entry)
        return np.stack([future.result() for future in futures])

    @property
    def depth(self) -> int:
        """How many items wait."""
        return self._waiting.qsize()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < self._largest and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    self._waiting.put(None)
                    break
                batch.append(following)
            self._do(batch)

    def _do(self, batch: list[tuple[Any, Future[FloatArray]]]) -> None:
        self._on_batch(len(batch))
        try:
            rows = self._work([item for item, _ in batch])
        except BaseException as error:  # noqa: BLE001 (whoever asked is told)
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), row in zip(batch, rows, strict=True):
            future.set_result(row)

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._closed = True
        self._waiting.put(None)
        self._thread.join()


class SharedEncoder:
    """`store.encoder.Encoder` for many threads at once; `inner` does the work."""

    def __init__(
        self,
        inner: Encoder,
        decoders: Decoders,
        *,
        largest: int = 32,
        on_batch: Callable[[str, int], None] = lambda _kind, _size: None,
    ) -> None:
        self._inner, self._decoders = inner, decoders
        self.name, self.dimension, self.fingerprint = inner.name, inner.dimension, inner.fingerprint
        self._preprocessing = getattr(inner, "preprocessing", None)
        if (precision := getattr(inner, "precision", None)) is not None:
            self.precision = precision
        self.images = Batcher(inner.encode_pixels, largest, lambda n: on_batch("image", n))
        self.texts = Batcher(inner.encode_texts, largest, lambda n: on_batch("text", n))

    def preprocess(self, image: Image.Image) -> Pixels:
        """As the encoder does it."""
        return self._inner.preprocess(image)

    def preprocess_data(self, data: bytes) -> Pixels:
        """Model-ready pixels of a picture's bytes, decoded elsewhere. Raises ImageRejected."""
        pixels = self._decoders.pixels(data, self._preprocessing)
        if self._preprocessing is None:
            return self._inner.preprocess(Image.fromarray(pixels))
        return pixels

    def encode_pixels(self, pixels: Sequence[Pixels]) -> FloatArray:
        """Unit rows, (n, d) float32."""
        return self.images.rows(pixels)

    def encode_images(self, images: Sequence[Image.Image]) -> FloatArray:
        """Unit rows, (n, d) float32."""
        return self.encode_pixels([self.preprocess(image) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Unit rows, (n, d) float32."""
        return self.texts.rows(texts)

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many are longer than the encoder reads."""
        return self._inner.count_truncated(texts)

    def close(self) -> None:
        """Finish what waits."""
        self.images.close()
        self.texts.close()
