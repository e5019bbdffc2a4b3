"""Queries: a picture, a text, a stored product or a whole file become rows to search with."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import InputError
from kinshelf.db.product import Product, Reject, pictures_of
from kinshelf.db.text import normalise
from kinshelf.store.compatibility import check_dimension
from kinshelf.store.ingest.add import open_downloader, read_batches
from kinshelf.store.ingest.batch_encoder import BatchEncoder
from kinshelf.store.ingest.candidate import (
    Candidate,
    bring,
    candidates,
    pairs_of,
    reject,
    width_of,
)
from kinshelf.store.ingest.picture_vectors import PictureVectors
from kinshelf.store.ingest.pictures import Picture, Preprocessor, is_url, read_pictures
from kinshelf.store.ingest.several import attach
from kinshelf.store.query import Query, QueryFields
from kinshelf.store.results import AddOptions, AddReport, Neighbour

if TYPE_CHECKING:
    from kinshelf.db.images.download import Downloader
    from kinshelf.db.product import StoredProduct
    from kinshelf.db.sources.readers import ReadBatch
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot
    from kinshelf.store.search.neighbours import Neighbours


@dataclass(frozen=True, slots=True)
class QueryBatch:
    """Products to ask about and their embedding pairs, (n, 2 * dimension) float32, row by row."""

    products: list[Product]
    pairs: FloatArray
    rejects: list[Reject]


def embed(shelf: AnyShelf, query: Query) -> FloatArray:
    """The embedding pairs of a picture, a text or both, (1, 2 * dimension) float32.

    A modality not given is zeros. Raises ImageRejected, InputError or EncoderError.
    """
    product = Product("query", title=normalise(query.text or ""))
    if not product.text and not query.image:
        raise InputError("the query is empty: give --image, --text or both")
    candidate = Candidate(product, 0, "query")
    picture = _picture(query.image, allow_private_hosts=query.allow_private_hosts)
    candidate.picture = picture
    candidate.image_hash = picture.content_hash if picture else None
    _encode(shelf, [candidate])
    if candidate.image_rejected:
        raise candidate.image_rejected
    return pairs_of([candidate], shelf.encoder.dimension)


def _picture(image: str | bytes | None, *, allow_private_hosts: bool) -> Picture | None:
    if isinstance(image, bytes):
        from kinshelf.db.images.decode import content_hash

        return Picture(None, image, content_hash(image))
    if image is None or not is_url(image):
        return read_pictures([image], None)[0]  # the network's libraries are slow to import
    with (
        tempfile.TemporaryDirectory() as folder,
        open_downloader(Path(folder), allow_private_hosts=allow_private_hosts) as downloader,
    ):
        return read_pictures([image], downloader)[0]


def _encode(shelf: AnyShelf, candidates: Sequence[Candidate]) -> None:
    preprocessor = Preprocessor(shelf.encoder)
    try:
        encoder = BatchEncoder(shelf.encoder, preprocessor, AddReport())
        encoder.run(candidates, lambda _: np.empty((0, 0), dtype=np.float32))
    finally:
        preprocessor.close()


def embed_source(
    shelf: AnyShelf, source: Path, options: AddOptions, weight_image: float = 0.5
) -> Iterator[QueryBatch]:
    """The products of a file as queries, a batch at a time; nothing is stored.

    A row of which nothing has any weight is rejected.
    """
    private = options.allow_private_hosts
    with (
        tempfile.TemporaryDirectory() as folder,
        open_downloader(Path(folder), allow_private_hosts=private) as downloader,
    ):
        for batch in read_batches(source, options):
            yield _query_batch(shelf, batch, downloader, weight_image)


def _query_batch(
    shelf: AnyShelf, batch: ReadBatch, downloader: Downloader, weight_image: float
) -> QueryBatch:
    found = candidates(batch)
    if batch.image_embeddings is not None or batch.text_embeddings is not None:
        check_dimension(width_of(batch), shelf.name, shelf.manifest, empty=False)
        bring(found, batch)
    else:
        attach(found, shelf.manifest.pictures, lambda names: read_pictures(names, downloader))
        _encode(shelf, found)
    usable = [c for c in found if c.image is not None or c.text is not None]
    for candidate in usable:
        lacking = candidate.image if weight_image == 1 else candidate.text
        if weight_image in (0, 1) and lacking is None:
            _reject_weightless(candidate, weight_image)
    rejects = batch.rejects + [c.reject for c in found if c.reject]
    usable = [c for c in usable if c.reject is None or c.reject.kept]
    rows = pairs_of(usable, shelf.dimension)
    return QueryBatch([c.product for c in usable], rows, rejects)


def _reject_weightless(candidate: Candidate, weight_image: float) -> None:
    lacking = "picture" if weight_image else "text"
    message = f"weight_image is {weight_image:g} and the row has no {lacking}: nothing would count"
    candidate.reject = reject(candidate, "no-weight", message)


def of_source(query: Query | None, fields: QueryFields) -> Query:
    """How to answer for the products of a file. Raises InputError if it names a product itself."""
    asked = Query.of(query, fields)
    if asked.id is not None or asked.image or asked.text or asked.like:
        raise InputError(
            "a file holds the products to ask about: leave out id, image, text and like"
        )
    return asked


def neighbours(
    snapshot: AnySnapshot,
    found: Neighbours,
    images: FloatArray | None = None,
    vectors: PictureVectors | None = None,
) -> list[list[Neighbour]]:
    """Found rows with their catalogue entries, one list a query.

    images: the queries' image embeddings, (n, d); with `vectors`, a neighbour with several pictures
    says which one the query's resembles most.
    """
    known = snapshot.view.by_rows(found.rows[found.rows >= 0])
    answers = []
    for i, rows in enumerate(found.rows):
        image = None if images is None or not images[i].any() else images[i]
        there = [(j, known[int(row)]) for j, row in enumerate(rows) if row >= 0]
        answers.append(
            [_neighbour(one, found, (i, j), _nearest(one, vectors, image)) for j, one in there]
        )
    return answers


def _neighbour(
    stored: StoredProduct, found: Neighbours, place: tuple[int, int], matched: str | None
) -> Neighbour:
    product = stored.product
    return Neighbour(
        product.id, product.title, product.category, product.image,
        float(found.similarities[place]), _or_none(found.image_similarities[place]),
        _or_none(found.text_similarities[place]), stored.row, matched,
    )  # fmt: skip


def _nearest(
    stored: StoredProduct, vectors: PictureVectors | None, image: FloatArray | None
) -> str | None:
    """The picture that the query's resembles most, of a product with several that are kept."""
    if vectors is None or image is None or len(stored.picture_hashes) < 2:
        return None
    hashes = zip(pictures_of(stored.product), stored.picture_hashes, strict=False)
    rows = [(name, vectors.get(digest)) for name, digest in hashes if digest]
    cosines = {name: float(row @ image) for name, row in rows if row is not None}
    return max(cosines, key=lambda name: cosines[name]) if cosines else None


def _or_none(value: np.float32) -> float | None:
    return None if math.isnan(value) else float(value)
