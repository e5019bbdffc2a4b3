"""One encoder for all requests, which encodes simultaneous ones as one batch.

`SharedEncoder` is an `Encoder` like any other, so classify, similar and add need not know. Its
pictures are decoded in other processes (`workers.decoding`), and the model has a process of its own
too (`workers.encoding`), where pictures are gathered, unless it was loaded already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinshelf.db.arrays import FloatArray
from kinshelf.serve.workers.batching import Batcher
from kinshelf.serve.workers.encoding import EncoderProcess

if TYPE_CHECKING:
    from kinshelf.serve.workers.decoding import Decoders
    from kinshelf.store.encode.encoder import Encoder

Pixels = NDArray[np.uint8]


class SharedEncoder:
    """`store.encode.encoder.Encoder` for many threads at once; `inner` does the work."""

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
        self.images: Batcher[Pixels, FloatArray] | None = None
        if not isinstance(inner, EncoderProcess):
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
        if self.images is None:
            return self._inner.encode_pixels(pixels)
        return np.stack(self.images.results(pixels))

    def encode_images(self, images: Sequence[Image.Image]) -> FloatArray:
        """Unit rows, (n, d) float32."""
        return self.encode_pixels([self.preprocess(image) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Unit rows, (n, d) float32."""
        return np.stack(self.texts.results(texts))

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Count the texts that are longer than the encoder reads."""
        return self._inner.count_truncated(texts)

    def rest(self) -> None:
        """Release most of the model's memory, as another encoder has taken its place."""
        if isinstance(self._inner, EncoderProcess):
            self._inner.rest()

    def close(self) -> None:
        """Finish what waits."""
        if self.images is not None:
            self.images.close()
        self.texts.close()
        if isinstance(self._inner, EncoderProcess):
            self._inner.close()
