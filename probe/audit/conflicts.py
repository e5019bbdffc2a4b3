"""Pictures and texts that do not belong together: does another product's text fit better?

For each product, how probable its own text is for its picture among the texts of the shelf, and its
own picture for its text, as in CLIP's training (Radford et al. 2021, arXiv 2103.00020), with the
form of `probe.audit.alignment` added to the cosine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray
from kinshelf.probe.audit.alignment import learn_alignment
from kinshelf.probe.audit.facts import Facts

if TYPE_CHECKING:
    from kinshelf.store.generation import AnySnapshot

REFERENCE = 2048
"""Products whose pictures and texts are compared with each; drawn by chance from a larger shelf."""

FEWEST = 20
"""With fewer pairs of picture and text nothing is reported."""

CONFLICT = 1.5
"""`score` from which picture and text conflict; at 1 they are no better a pair than any two. Of 828
toys 3 % reach it, and 96 % of those whose picture was exchanged."""

_COSINE_SCALES = (0.0, 12.5, 25.0, 50.0, 100.0)
_FORM_SCALE = 2.0
_FORM_FEWEST, _FORM_TELLS = 200, 1.0
"""The learned form counts if there are so many pairs to learn from, and if the middle one of them
stands out so far from other texts, in standard deviations: of unrelated embeddings it learns 0."""


_BLOCK = 1024
_TUNED_ON = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Conflicts:
    """Per product (n,): `score` float64, from 0 for a pair that fits like no other to 1 for one no
    better than chance and beyond; NaN where picture or text is missing. `better` int64: the place
    of the product whose text fits the picture best, -1 if that is its own."""

    score: Float64Array
    better: IntArray

    @property
    def flagged(self) -> BoolArray:
        """Pairs clearly worse than chance."""
        return np.nan_to_num(self.score, nan=-1.0) >= CONFLICT


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Pictures and texts (n, D), and for each picture what turns a text into the learned form:
    `(vectors @ text - offset) / spread`, of mean 0 and variance 1 over the reference's texts."""

    places: IntArray
    image: FloatArray
    text: FloatArray
    vectors: FloatArray
    offset: FloatArray
    spread: FloatArray

    def take(self, part: slice) -> _Pairs:
        """Select some of the pairs."""
        return _Pairs(*(getattr(self, name)[part] for name in _FIELDS))

    def cosines(self, other: _Pairs) -> FloatArray:
        """Cosines of these pictures with the other's texts, (n, m)."""
        return self.image @ other.text.T

    def forms(self, other: _Pairs) -> FloatArray:
        """The learned form of these pictures with the other's texts, (n, m)."""
        raw = self.vectors @ other.text.T - self.offset[:, None]
        return np.asarray(raw / self.spread[:, None], dtype=np.float32)

    def own(self, scales: tuple[float, float]) -> FloatArray:
        """The match of each picture with its own text, (n,)."""
        cosine = np.einsum("nd,nd->n", self.image, self.text)
        form = (np.einsum("nd,nd->n", self.vectors, self.text) - self.offset) / self.spread
        return np.asarray(scales[0] * cosine + scales[1] * form, dtype=np.float32)


_FIELDS = ("places", "image", "text", "vectors", "offset", "spread")


def find_conflicts(snapshot: AnySnapshot, facts: Facts, seed: int = 0) -> Conflicts:
    """Compare each picture with its own text and with those of `REFERENCE` other products."""
    score = np.full(len(facts), np.nan)
    better = np.full(len(facts), -1, dtype=np.int64)
    places = np.flatnonzero(facts.has_both).astype(np.int64)
    if len(places) < FEWEST:
        return Conflicts(score, better)
    reader = _Reader(snapshot, facts, places)
    drawn = np.random.default_rng(seed).permutation(places)[:REFERENCE]
    reference = reader.pairs(np.sort(drawn))
    scales = _fit_scales(reference, facts.content, len(places))
    for block in _blocks(places):
        part = reader.pairs(block, reference.text)
        loss, best = _losses(part, reference, facts.content, scales)
        # twice the logarithm of how many there were to choose from: what guessing costs
        score[block] = loss / (2 * math.log(len(drawn)))
        better[block] = best
    return Conflicts(score, better)


def _blocks(places: IntArray) -> Iterator[IntArray]:
    for start in range(0, len(places), _BLOCK):
        yield places[start : start + _BLOCK]


class _Reader:
    """Reads pairs from the mapped vectors, and knows the form learned from all of them."""

    def __init__(self, snapshot: AnySnapshot, facts: Facts, places: IntArray) -> None:
        self._snapshot = snapshot
        self._rows = facts.rows
        blocks = ((block, *self._sides(block)) for block in _blocks(places))
        self._alignment = learn_alignment(blocks, snapshot.dimension)

    def _sides(self, places: IntArray) -> tuple[FloatArray, FloatArray]:
        image, text = np.split(self._snapshot.pairs(self._rows[places]), 2, axis=1)
        return image, text

    def pairs(self, places: IntArray, texts: FloatArray | None = None) -> _Pairs:
        """The pairs at `places`, their form standardised over `texts` (else over their own)."""
        image, text = self._sides(places)
        vectors, offset = self._alignment.project(image, places)
        raw = vectors @ (text if texts is None else texts).T - offset[:, None]
        # a spread of nothing, as with equal texts, must not be divided by
        spread = np.maximum(raw.std(axis=1), np.float32(1e-6))
        return _Pairs(places, image, text, vectors, offset + raw.mean(axis=1), spread)


def _fit_scales(reference: _Pairs, content: IntArray, count: int) -> tuple[float, float]:
    """The scale of the cosine under which the middle one of the shelf's pairs is most probable.

    The median, as pairs that do not fit are what is looked for. CLIP was trained with a scale of
    100 for the cosine; embeddings of two unrelated models get 0.
    """
    some = reference.take(slice(_TUNED_ON))
    tells = float(np.median(some.own((0.0, 1.0)))) >= _FORM_TELLS
    form_scale = _FORM_SCALE if tells and count >= _FORM_FEWEST else 0.0
    cosines, forms = some.cosines(some), some.forms(some)
    copy = content[some.places][:, None] == content[some.places]

    def loss(cosine_scale: float) -> float:
        scores = cosine_scale * cosines + form_scale * forms
        scores[copy] = -np.inf
        own = some.own((cosine_scale, form_scale))
        return float(np.median(_surprise(own, scores) + _surprise(own, scores.T)))

    return min(_COSINE_SCALES, key=loss), form_scale


def _losses(
    part: _Pairs, reference: _Pairs, content: IntArray, scales: tuple[float, float]
) -> tuple[Float64Array, IntArray]:
    """-log p(text | picture) - log p(picture | text), and the place of a better text or -1."""
    own = part.own(scales)
    copy = content[part.places][:, None] == content[reference.places]
    texts = scales[0] * part.cosines(reference) + scales[1] * part.forms(reference)
    images = (scales[0] * reference.cosines(part) + scales[1] * reference.forms(part)).T
    texts[copy], images[copy] = -np.inf, -np.inf
    best = texts.argmax(axis=1)
    is_better = texts[np.arange(len(own)), best] > own
    loss = _surprise(own, texts) + _surprise(own, images)
    return loss, np.where(is_better, reference.places[best], -1)


def _surprise(own: FloatArray, others: FloatArray) -> Float64Array:
    """-log of the softmax of `own` (n,) among itself and `others` (n, m)."""
    scores = others.astype(np.float64)
    top = np.maximum(scores.max(axis=1, initial=-np.inf), own)
    total = np.exp(scores - top[:, None]).sum(axis=1) + np.exp(own - top)
    return np.asarray(np.log(total) + top - own, dtype=np.float64)
