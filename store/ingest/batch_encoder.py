"""Encodes what is new in a batch: each picture and each text once, what the shelf has reused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import ImageRejected
from kinshelf.store.ingest.candidate import fail_image
from kinshelf.store.ingest.pictures import Preprocessor
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.store.encode.encoder import Encoder
    from kinshelf.store.ingest.candidate import Candidate
    from kinshelf.store.results import AddReport

FEW = 4
"""Of so few products pictures and texts are encoded at once; more keep every core busy anyway."""


class BatchEncoder:
    """Fills `image` and `text` of candidates; sets `image_error` or `reject` where it cannot."""

    def __init__(self, encoder: Encoder, preprocessor: Preprocessor, report: AddReport) -> None:
        self._encoder = encoder
        self._preprocessor = preprocessor
        self._report = report

    def begin(self, candidates: Sequence[Candidate]) -> None:
        """Start decoding the pictures of candidates that `run` will be called with later on."""
        pictures = {c.image_hash: c.picture.data for c in candidates if _is_new(c)
                    and c.image_hash and c.picture and c.picture.data is not None
                    and self._preprocessor.images.get(c.image_hash) is None}  # fmt: skip
        self._preprocessor.begin(pictures)

    def run(
        self, candidates: Sequence[Candidate], pairs: Callable[[list[int]], FloatArray]
    ) -> None:
        """`pairs` gives the stored embedding pairs of row numbers, for what did not change."""
        self._encode(candidates, pairs)
        self._preprocessor.drop(c.image_hash for c in candidates)

    def _encode(
        self, candidates: Sequence[Candidate], pairs: Callable[[list[int]], FloatArray]
    ) -> None:
        self._reuse(candidates, pairs)
        pictured = [c for c in candidates if c.image is None and c.picture is not None]
        described = [c for c in candidates if c.text is None and c.product.text]
        if not pictured or not described or len(candidates) > FEW:
            self._images(pictured)
            self._texts(described)
            return
        with ThreadPoolExecutor(1, "kinshelf-text") as pool:
            texts = pool.submit(self._texts, described)
            self._images(pictured)
            texts.result()

    def _reuse(
        self, candidates: Sequence[Candidate], pairs: Callable[[list[int]], FloatArray]
    ) -> None:
        known = [(c, c.old) for c in candidates if c.old is not None]
        if not known:
            return
        image, text = fusion.split(pairs([old.row for _, old in known]))
        for i, (candidate, old) in enumerate(known):
            if candidate.picture_kept or not _is_new(candidate):
                candidate.image = image[i]
            if old.has_text and old.product.text == candidate.product.text:
                candidate.text = text[i]

    def _images(self, candidates: list[Candidate]) -> None:
        for candidate in candidates:
            if candidate.picture and candidate.picture.error:
                fail_image(candidate, candidate.picture.error)
            elif candidate.image_hash:
                candidate.image = self._preprocessor.images.get(candidate.image_hash)
        data = {
            c.image_hash: c.picture.data
            for c in candidates
            if c.image is None and c.image_hash and c.picture and c.picture.data is not None
        }
        results = self._encode_images(data)
        for candidate in candidates:
            if candidate.image_hash in results:
                result = results[candidate.image_hash]
                if isinstance(result, ImageRejected):
                    fail_image(candidate, result)
                else:
                    candidate.image = result

    def _encode_images(
        self, data: dict[str, bytes]
    ) -> dict[str | None, FloatArray | ImageRejected]:
        pixels = self._preprocessor.take(data)
        results: dict[str | None, FloatArray | ImageRejected] = {
            name: result for name, result in pixels.items() if isinstance(result, ImageRejected)
        }
        good = {n: p for n, p in pixels.items() if not isinstance(p, ImageRejected)}
        if good:
            rows = self._encoder.encode_pixels(list(good.values()))
            for name, row in zip(good, rows, strict=True):
                results[name] = row
                self._preprocessor.images.put(name, row)
        self._report.encoded_images += len(good)
        return results

    def _texts(self, candidates: list[Candidate]) -> None:
        remembered = self._preprocessor.texts
        found = {c.product.text: remembered.get(c.product.text) for c in candidates}
        new = [text for text, row in found.items() if row is None]
        for text, row in zip(new, self._encoder.encode_texts(new) if new else (), strict=True):
            found[text] = row
            remembered.put(text, row)
        for candidate in candidates:
            candidate.text = found[candidate.product.text]
        self._report.encoded_texts += len(new)
        self._report.truncated_texts += self._encoder.count_truncated(new) if new else 0


def _is_new(candidate: Candidate) -> bool:
    """Whether its picture is another than the shelf has of it."""
    old = candidate.old
    same = old is not None and old.has_image and old.image_hash == candidate.image_hash
    return not same or candidate.image_hash is None
