"""Encodes what is new in a batch: each picture and each text once, what the shelf has reused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.errors import ImageRejected
from kinshelf.store import fusion, records
from kinshelf.store.intake import Preprocessor

if TYPE_CHECKING:
    from kinshelf.store.encoder import Encoder
    from kinshelf.store.ingest import Candidate
    from kinshelf.store.report import AddReport

FloatArray = NDArray[np.float32]


class BatchEncoder:
    """Fills `image` and `text` of candidates; sets `image_error` or `reject` where it cannot."""

    def __init__(self, encoder: Encoder, preprocessor: Preprocessor, report: AddReport) -> None:
        self._encoder = encoder
        self._preprocessor = preprocessor
        self._report = report

    def run(
        self, candidates: Sequence[Candidate], halves: Callable[[list[int]], FloatArray]
    ) -> None:
        """`halves` gives the stored halves of row numbers, for what did not change."""
        self._reuse(candidates, halves)
        self._images([c for c in candidates if c.image is None and c.picture is not None])
        self._texts([c for c in candidates if c.text is None and c.product.text])

    def _reuse(
        self, candidates: Sequence[Candidate], halves: Callable[[list[int]], FloatArray]
    ) -> None:
        known = [(c, c.old) for c in candidates if c.old is not None]
        if not known:
            return
        image, text = fusion.split(halves([old.row for _, old in known]))
        for i, (candidate, old) in enumerate(known):
            if old.has_image and old.image_hash == candidate.image_hash is not None:
                candidate.image = image[i]
            if old.has_text and old.product.text == candidate.product.text:
                candidate.text = text[i]

    def _images(self, candidates: list[Candidate]) -> None:
        for candidate in candidates:
            if candidate.picture and candidate.picture.error:
                records.fail_image(candidate, candidate.picture.error)
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
                    records.fail_image(candidate, result)
                else:
                    candidate.image = result

    def _encode_images(
        self, data: dict[str, bytes]
    ) -> dict[str | None, FloatArray | ImageRejected]:
        pixels = dict(zip(data, self._preprocessor.run(list(data.values())), strict=True))
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
