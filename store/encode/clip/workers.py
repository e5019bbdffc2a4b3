"""The bulk runtime: torch on every core, or on one GPU.

On a CPU each worker thread computes its own batches with one thread inside: two such workers beat
one with two threads, which would wait for each other in every small operation. A batch that is
alone gets the threads of the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from kinshelf.db.arrays import FloatArray
from kinshelf.db.threads import threads
from kinshelf.store.encode.clip.torch_clip import TorchClip

if TYPE_CHECKING:
    from kinshelf.store.encode.clip.weights import ClipWeights
    from kinshelf.store.encode.image_processor import Preprocessing

T = TypeVar("T")
_ONE_THREAD_EACH = 8
"""Beyond so many cores, workers get several threads each: batches would become too many."""

_SETTING = threading.Lock()


class Workers:
    """`store.clip.Runtime` over `TorchClip`. Batch sizes are those that measured best.

    `steady`: every operation on one thread, on however many cores, so that they decide no bit;
    torch is left with that setting.
    """

    def __init__(
        self,
        weights: ClipWeights,
        preprocessing: Preprocessing,
        precision: str,
        device: str,
        *,
        steady: bool = False,
    ) -> None:
        self._model = TorchClip(weights, preprocessing, precision, device)
        on_gpu = torch.device(device).type == "cuda"
        # On a GPU the second one puts its batch together while the first one's is computed.
        cores = 2 if on_gpu else threads()
        self.images_a_batch = 256 if on_gpu else 8
        self.tokens_a_batch = 16384 if on_gpu else 640
        self._steady = steady
        self._count = cores if steady else min(cores, _ONE_THREAD_EACH)
        self._cores, self._working, self._lock = cores, 0, threading.Lock()

    def images(self, batches: list[Sequence[NDArray[np.uint8]]]) -> list[FloatArray]:
        """Features, (n, d), of each batch of n (H, W, 3) uint8."""
        return self._map(lambda batch: self._model.images(np.stack(batch)), batches)

    def texts(self, batches: list[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> list[FloatArray]:
        """Features, (n, d), of each batch of token ids, (n, length), and ends, (n,)."""
        return self._map(lambda batch: self._model.texts(*batch), batches)

    def _map(self, run: Callable[[T], FloatArray], batches: Sequence[T]) -> list[FloatArray]:
        """In worker threads that end with the call: an encoder needs no closing."""
        if len(batches) <= 1:
            return [self._alone(run, batch) for batch in batches]
        count = min(self._count, len(batches))
        with self._shared(count) as each, ThreadPoolExecutor(count, "kinshelf-encode") as pool:
            ready = threading.Barrier(count + 1)
            with _SETTING:
                before = torch.get_num_threads()
                # A task makes a thread only while none is idle, and none is before the barrier.
                waiting = [pool.submit(_prepare, each, ready) for _ in range(count)]
                ready.wait()
                # The setting is also the default of threads to come, and MKL's for all: give it
                # back.
                if not self._steady:
                    torch.set_num_threads(before)
            done = list(pool.map(run, batches))
            for task in waiting:
                task.result()
        return done

    def _alone(self, run: Callable[[T], FloatArray], batch: T) -> FloatArray:
        """In the caller's thread: to begin another one costs 2 of the 50 ms of a small batch."""
        with self._shared(1) as each:
            with _SETTING:
                before = torch.get_num_threads()
                torch.set_num_threads(each)
            try:
                return run(batch)
            finally:
                if not self._steady:
                    with _SETTING:
                        torch.set_num_threads(before)

    @contextmanager
    def _shared(self, count: int) -> Iterator[int]:
        """How many threads each of `count` workers may use beside those of other calls."""
        with self._lock:
            self._working += count
            each = 1 if self._steady else max(1, self._cores // self._working)
        try:
            yield each
        finally:
            with self._lock:
                self._working -= count


def _prepare(threads_each: int, ready: threading.Barrier) -> None:
    torch.get_num_threads()  # a thread's first query would undo earlier settings
    torch.set_num_threads(threads_each)
    ready.wait()
