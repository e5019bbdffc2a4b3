"""Encodes what is new in a batch: each picture and each text once, what the shelf has reused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import ImageRejected
from kinshelf.store.ingest.candidate import fail_image
from kinshelf.store.ingest.pictures import Preprocessor
from kinshelf.store.ingest.several import lose_one, pooled
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.store.encode.encoder import Encoder
    from kinshelf.store.ingest.candidate import Candidate
    from kinshelf.store.ingest.picture_vectors import PictureVectors
    from kinshelf.store.results import AddReport

FEW = 4
"""Of so few products pictures and texts are encoded at once; more keep every core busy anyway."""


class BatchEncoder:
    """Fills `image` and `text` of candidates; sets `image_error` or `reject` where it cannot.

    `vectors` are known embeddings of single pictures.
    """

    def __init__(
        self,
        encoder: Encoder,
        preprocessor: Preprocessor,
        report: AddReport,
        vectors: PictureVectors | None = None,
    ) -> None:
        self._encoder = encoder
        self._vectors = vectors
        self._preprocessor = preprocessor
        self._report = report

    def begin(self, candidates: Sequence[Candidate]) -> None:
        """Start decoding the pictures of candidates that `run` will be called with later on."""
        pictures = _pictures(c for c in candidates if _is_new(c))
        new = {name: data for name, data in pictures.items() if self._embedding(name) is None}
        self._preprocessor.begin(new)

    def run(
        self, candidates: Sequence[Candidate], pairs: Callable[[list[int]], FloatArray]
    ) -> None:
        """`pairs` gives the stored embedding pairs of row numbers, for what did not change."""
        self._encode(candidates, pairs)
        self._preprocessor.drop(_pictures(candidates))

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
            elif candidate.usable and old.has_image and len(old.picture_hashes) == 1:
                self._preprocessor.images.put(old.picture_hashes[0], image[i])
            if old.has_text and old.product.text == candidate.product.text:
                candidate.text = text[i]

    def _images(self, candidates: list[Candidate]) -> None:
        pictures = _pictures(candidates)
        known = {name: row for name in pictures if (row := self._embedding(name)) is not None}
        new = {name: data for name, data in pictures.items() if name not in known}
        found = self._encode_images(new) | known
        for candidate in candidates:
            if candidate.usable:
                self._put_together(candidate, found)
            elif candidate.picture and candidate.picture.error:
                fail_image(candidate, candidate.picture.error)

    def _embedding(self, name: str) -> FloatArray | None:
        """That of a picture by its content hash, where it was encoded before."""
        row = self._preprocessor.images.get(name)
        return row if row is not None or self._vectors is None else self._vectors.get(name)

    def _put_together(
        self, candidate: Candidate, found: Mapping[str, FloatArray | ImageRejected]
    ) -> None:
        """The image half of what its pictures were encoded to."""
        rows: dict[str, FloatArray] = {}
        failed: list[tuple[int, ImageRejected]] = []
        for number, picture in enumerate(candidate.pictures or candidate.usable, start=1):
            result = found.get(picture.content_hash or "")
            if isinstance(result, ImageRejected):
                failed.append((number, result))
            elif result is not None:
                rows[picture.content_hash or ""] = result
        if not rows:
            fail_image(candidate, failed[0][1])
            return
        for number, error in failed:
            lose_one(candidate, error, number)
        candidate.image = pooled(list(rows.values()))
        if self._vectors is not None and len(candidate.pictures) > 1:
            self._vectors.put(rows)

    def _encode_images(self, data: dict[str, bytes]) -> dict[str, FloatArray | ImageRejected]:
        pixels = self._preprocessor.take(data)
        results: dict[str, FloatArray | ImageRejected] = {
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


def _pictures(candidates: Iterable[Candidate]) -> dict[str, bytes]:
    """The bytes of pictures by their content hashes."""
    return {
        picture.content_hash: picture.data
        for candidate in candidates
        for picture in candidate.usable
        if picture.content_hash and picture.data is not None
    }


def _is_new(candidate: Candidate) -> bool:
    """Whether its picture is another than the shelf has of it."""
    old = candidate.old
    same = old is not None and old.has_image and old.image_hash == candidate.image_hash
    return not same or candidate.image_hash is None
