"""`similar`: one method behind the command, the API and Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import InputError
from kinshelf.db.formats.folder import IMAGE_SUFFIXES
from kinshelf.store.ingest.picture_vectors import PictureVectors
from kinshelf.store.ingest.queries import embed, embed_source, neighbours, of_source
from kinshelf.store.query import Query, QueryFields
from kinshelf.store.results import AddOptions, SearchResult
from kinshelf.store.similar.cross import crossing
from kinshelf.store.similar.examples import BestScore, average
from kinshelf.store.similar.fused import by_keywords, hybrid
from kinshelf.store.similar.questions import Nearest, Question, ranking
from kinshelf.store.similar.ranking import Ranking
from kinshelf.store.similar.variety import chosen

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot
    from kinshelf.store.ingest.queries import QueryBatch

NEIGHBOURS = 10
"""How many `similar` gives if not reported."""
Asked = Question | Nearest


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """What one answer is found by: not at all by meaning, where there is no question."""

    question: Asked | None
    exclude: Sequence[int]
    words: str = ""
    images: FloatArray | None = None


def similar(
    shelf: AnyShelf, query: Query | None = None, /, **fields: Unpack[QueryFields]
) -> SearchResult:
    """The k products nearest to a stored product, to a picture, a text or both, or to examples.

    Takes a `Query`, or its fields as keywords. The stored products named are left out. Raises
    ProductNotFound, FilterError, EmptyShelf, ImageRejected, InputError or EncoderError.

    >>> found = similar(shelf, id="KS-0116", k=3, where="price < 100")
    >>> len(found.neighbours), "KS-0116" in [near.id for near in found.neighbours]
    (3, False)
    """
    asked = Query.of(query, fields)
    now = shelf.snapshot(asked.at)
    vectors = PictureVectors(shelf.path, shelf.manifest)
    if asked.like:
        question, rows = _of_examples(shelf, now, asked)
        return _answer(now, asked, _Ready(question, rows))
    stored = now.get(asked.id) if asked.id is not None else None
    words = asked.text or (stored.product.text if stored else "")
    if asked.mode == "keywords":
        return _answer(now, asked, _Ready(None, [stored.row] if stored else [], words))
    pair, rows = _pair(shelf, now, stored or asked)
    question = _of_pair(now, asked, pair, stored=bool(rows))
    return _answer(now, asked, _Ready(question, rows, words, pair[None, : now.dimension]), vectors)


def _pair(
    shelf: AnyShelf, now: AnySnapshot, asked: Query | StoredProduct
) -> tuple[FloatArray, list[int]]:
    """The embedding pair of what is asked, (2 * dimension,), and its row if it is stored."""
    if isinstance(asked, Query):
        if asked.id is None:
            return embed(shelf, asked)[0], []
        asked = now.get(asked.id)
    return now.pairs([asked.row])[0], [asked.row]


def _of_pair(now: AnySnapshot, asked: Query, pair: FloatArray, *, stored: bool) -> Asked:
    crossed = None if stored else crossing(now, pair, asked.against, asked.weight_image)
    return crossed or Nearest(pair, asked.weight_image)


def _of_examples(shelf: AnyShelf, now: AnySnapshot, asked: Query) -> tuple[Asked, list[int]]:
    known = now.view.by_ids([one for one in asked.like + asked.unlike if isinstance(one, str)])
    like, unlike = (
        [_pair(shelf, now, _example(one, asked, known)) for one in each]
        for each in (asked.like, asked.unlike)
    )
    rows = list(dict.fromkeys(row for _, stored in like + unlike for row in stored))
    pairs = np.stack([pair for pair, _ in like])
    if asked.strategy == "average":
        others = np.stack([pair for pair, _ in unlike]) if unlike else pairs[:0]
        question = average(pairs, others, asked.weight_image)
        return _of_pair(now, asked, question.pair, stored=any(stored for _, stored in like)), rows
    liked, disliked = (
        [_of_pair(now, asked, pair, stored=bool(stored)) for pair, stored in each]
        for each in (like, unlike)
    )
    if len(liked) == 1 and not disliked:
        return liked[0], rows
    return BestScore(liked, disliked), rows


def _example(
    example: str | Query, asked: Query, known: Mapping[str, StoredProduct]
) -> Query | StoredProduct:
    """An example as a query: an id on the shelf, a picture's path or URL, or else a text."""
    if isinstance(example, Query):
        return example
    if example in known:
        return known[example]
    if example.startswith(("http://", "https://")) or _is_file(example):
        return Query(image=example, allow_private_hosts=asked.allow_private_hosts)
    if Path(example).suffix.casefold() in IMAGE_SUFFIXES:
        raise InputError(f"the example {example!r} is no id on the shelf, and no picture is there")
    return Query(text=example)


def read_as_texts(now: AnySnapshot, asked: Query) -> list[str]:
    """The examples of one word that are neither an id on the shelf nor a picture: maybe an id with
    a slip in it."""
    words = [e for e in asked.like + asked.unlike if isinstance(e, str) and len(e.split()) == 1]
    read = {word: _example(word, asked, now.view.by_ids(words)) for word in words}
    return [word for word, as_what in read.items() if as_what == Query(text=word)]


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long a name, or one with a null character
        return False


def _answer(
    now: AnySnapshot,
    asked: Query,
    ready: _Ready,
    vectors: PictureVectors | None = None,
) -> SearchResult:
    share = {"meaning": 0.0, "keywords": 1.0, "hybrid": asked.weight_keywords}[asked.mode]
    question, words, exclude = ready.question, ready.words, ready.exclude
    if share and not words:
        raise InputError(f"mode is {asked.mode!r} and there are no words: give a text")

    def search(depth: int) -> Ranking:
        if question is None or share == 1:
            return by_keywords(now, words, asked, depth, exclude)
        if share == 0:
            return ranking(now, question, depth, where=asked.where, exclude=exclude)
        return hybrid(now, words, asked, question, depth, exclude)

    found = chosen(now, asked, search, asked.k or NEIGHBOURS)
    shown = neighbours(now, found.neighbours(), ready.images, vectors)[0]
    facets = now.facets(asked.facets, asked.where)
    return SearchResult(shown, now.generation, now.fingerprint, found.exhaustive, facets)


def similar_source(
    shelf: AnyShelf,
    source: Path,
    options: AddOptions,
    query: Query | None = None,
    /,
    **fields: Unpack[QueryFields],
) -> Iterator[tuple[QueryBatch, list[SearchResult]]]:
    """Find similar products for every product of a file, a batch at a time; nothing is stored.

    Of a product that is on the shelf, the one with its id is left out of its answer.
    """
    asked = of_source(query, fields)
    now = shelf.snapshot(asked.at)
    now.filter(asked.where)  # what is wrong with it is reported before anything is encoded
    vectors = PictureVectors(shelf.path, shelf.manifest)
    for batch in embed_source(shelf, source, options, asked.weight_image):
        yield batch, _answers(now, asked, batch, vectors) if batch.products else []


def _answers(
    now: AnySnapshot, asked: Query, batch: QueryBatch, vectors: PictureVectors
) -> list[SearchResult]:
    stored = now.view.by_ids([product.id for product in batch.products])
    questions = [_of_pair(now, asked, pair, stored=False) for pair in batch.pairs]
    plain = asked.beyond("k", "where", "at", "weight_image", "allow_private_hosts") == []
    if plain and all(isinstance(each, Nearest) for each in questions):
        return _at_once(now, asked, batch, vectors)
    plainly = replace(asked, facets=())
    facets = now.facets(asked.facets, asked.where)
    ready = [
        _Ready(
            question, [stored[product.id].row] if product.id in stored else [], product.text,
            pair[None, : now.dimension],
        )
        for product, pair, question in zip(batch.products, batch.pairs, questions, strict=True)
    ]  # fmt: skip
    found = (_answer(now, plainly, each, vectors) for each in ready)
    return [replace(each, facets=facets) for each in found]


def _at_once(
    now: AnySnapshot, asked: Query, batch: QueryBatch, vectors: PictureVectors
) -> list[SearchResult]:
    k = asked.k or NEIGHBOURS
    near = now.kneighbors(batch.pairs, k + 1, where=asked.where, weight_image=asked.weight_image)
    found = []
    answers = neighbours(now, near, batch.pairs[:, : now.dimension], vectors)
    for product, answer in zip(batch.products, answers, strict=True):
        others = [each for each in answer if each.id != product.id][:k]
        found.append(SearchResult(others, now.generation, now.fingerprint, near.exhaustive))
    return found
