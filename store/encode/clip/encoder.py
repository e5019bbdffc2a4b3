"""A plain CLIP by our own forward passes: NumPy for a few queries, torch for many products.

Both read the same mapped weights and give the same embeddings; `store.clip_torch.ClipEncoder`,
the reference, is what both are checked against.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.db.errors import EncoderUnavailable
from kinshelf.db.threads import one_blas_thread
from kinshelf.store.encode.clip.weights import read_weights
from kinshelf.store.encode.fingerprint import fingerprint
from kinshelf.store.encode.image_processor import read_preprocessing
from kinshelf.store.encode.precision import FLOAT32, check_precision
from kinshelf.store.encode.tokenizer import Tokens

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

Pixels = NDArray[np.uint8]
QUICK_ITEMS = 24
"""Items encoded in NumPy before torch is worth its import: about its two seconds of work."""


class Runtime(Protocol):
    """A forward pass and the size of the batches that suit it."""

    images_a_batch: int
    tokens_a_batch: int

    def images(self, batches: list[Sequence[Pixels]]) -> list[FloatArray]:
        """Features, (n, d), of each batch of n (H, W, 3)."""

    def texts(self, batches: list[tuple[IntArray, IntArray]]) -> list[FloatArray]:
        """Features, (n, d), of each batch of token ids, (n, length), and ends, (n,)."""


class FastClipEncoder:
    """`store.encoder.Encoder` by our own forward passes, from a complete model directory.

    Raises EncoderUnavailable if the directory holds anything but a plain CLIP that fits its
    processor and tokenizer, or if the machine cannot compute in `precision`.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        precision: str = FLOAT32,
        device: str = "cpu",
        steady: bool = False,
    ) -> None:
        self.name, self.precision, self._device = name, check_precision(precision), device
        with ThreadPoolExecutor(1) as pool:
            digest = pool.submit(fingerprint, directory, precision)
            self.preprocessing = read_preprocessing(directory)
            self._weights = read_weights(directory)
            if self.preprocessing.size != (self._weights.image_size,) * 2:
                raise EncoderUnavailable("its image processor and its vision tower do not fit")
            self._tokens = Tokens(directory, len(self._weights.text.positions))
            self.fingerprint = digest.result()
        self.dimension, self._steady = self._weights.dimension, steady
        self._loading = threading.Lock()
        self._quick: Runtime | None = None
        self._bulk: Runtime | None = None
        # Rounding the weights at each pass makes one twice as slow.
        items = QUICK_ITEMS if precision == FLOAT32 else QUICK_ITEMS // 2
        self._quick_left = items if device == "cpu" and not steady else 0

    def preprocess(self, image: Image.Image) -> Pixels:
        """(H, W, 3) uint8, resized and cropped; thread-safe. See `Encoder.preprocess`."""
        return self.preprocessing.pixels(image)

    def encode_pixels(self, pixels: Sequence[Pixels]) -> FloatArray:
        """Unit rows, (n, d) float32, of n results of `preprocess`."""
        runtime = self._runtime(len(pixels))
        step = runtime.images_a_batch
        batches = [pixels[i : i + step] for i in range(0, len(pixels), step)]
        return self._unit(runtime.images(batches))

    def encode_images(self, images: Sequence[Image.Image]) -> FloatArray:
        """Unit rows, (n, d) float32, of n RGB pictures."""
        return self.encode_pixels([self.preprocess(image) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Unit rows, (n, d) float32, of n texts; beyond the last token a text is not read."""
        runtime = self._runtime(len(texts))
        ids = [self._read_part(each) for each in self._tokens.ids(texts)]
        # Neighbours in length share a batch: little padding, and the long ones start first.
        order = np.argsort([-len(each) for each in ids], kind="stable")
        batches = list(_batches([ids[i] for i in order], runtime.tokens_a_batch))
        rows = np.empty((len(texts), self.dimension), dtype=np.float32)
        rows[order] = self._unit(runtime.texts(batches))
        return rows

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Count the texts with more tokens than the model reads, start and end included."""
        return self._tokens.count_truncated(texts)

    def _read_part(self, ids: list[int]) -> list[int]:
        """Up to the token that the text is pooled at: later ones cannot change it."""
        eos = self._weights.eos
        if eos is None:
            return ids[: ids.index(max(ids)) + 1]
        return ids[: ids.index(eos) + 1] if eos in ids else ids[:1]

    def _unit(self, parts: list[FloatArray]) -> FloatArray:
        rows = np.concatenate([np.empty((0, self.dimension), dtype=np.float32), *parts])
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.maximum(norms, np.float32(1e-12)))

    def _runtime(self, count: int) -> Runtime:
        with self._loading:
            self._quick_left -= count
            if self._bulk is None and self._quick_left >= 0:
                self._quick = self._quick or self._load_quick()
                return self._quick
            self._bulk = self._bulk or self._load_bulk()
            return self._bulk

    def _load_quick(self) -> Runtime:
        from kinshelf.store.encode.clip.numpy_clip import NumpyClip

        return _Quick(NumpyClip(self._weights, self.preprocessing, self.precision))

    def _load_bulk(self) -> Runtime:
        from kinshelf.store.encode.clip.workers import Workers

        return Workers(
            self._weights, self.preprocessing, self.precision, self._device, steady=self._steady
        )


class _Quick:
    """One item at a time on one thread: BLAS threads that wait in a busy loop cost more."""

    images_a_batch, tokens_a_batch = 1, 1

    def __init__(self, model: QuickModel) -> None:
        self._model = model

    def images(self, batches: list[Sequence[Pixels]]) -> list[FloatArray]:
        with one_blas_thread:
            return [self._model.images(np.stack(each)) for each in batches]

    def texts(self, batches: list[tuple[IntArray, IntArray]]) -> list[FloatArray]:
        with one_blas_thread:
            return [self._model.texts(*each) for each in batches]


class QuickModel(Protocol):
    """What `_Quick` needs of `clip_numpy.NumpyClip`."""

    def images(self, pixels: Pixels) -> FloatArray:
        """(n, d) of (n, H, W, 3)."""

    def texts(self, ids: IntArray, ends: IntArray) -> FloatArray:
        """(n, d) of (n, length) and (n,)."""


def _batches(ids: Sequence[list[int]], tokens: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Padded runs of at most `tokens` tokens, at least one text each; `ids` longest first."""
    start = 0
    while start < len(ids):
        longest = len(ids[start])
        part = ids[start : start + max(1, tokens // longest)]
        padded = np.zeros((len(part), longest), dtype=np.int64)
        for row, each in zip(padded, part, strict=True):
            row[: len(each)] = each
        yield padded, np.array([len(each) - 1 for each in part])
        start += len(part)
