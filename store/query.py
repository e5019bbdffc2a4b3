"""What is asked of a shelf: the one list of an image, a text, an id and how to answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal, Self, TypedDict, get_args

from kinshelf.db.errors import InputError

Against = Literal["image", "text", "both"]
Mode = Literal["meaning", "keywords", "hybrid"]
Strategy = Literal["average", "best-score"]
DIVERSE = 0.5
"""The weight of similarity in `diverse` where none is given."""
CANDIDATES = 200
"""The nearest products that `diverse` chooses from."""


class QueryFields(TypedDict, total=False):
    """The fields of `Query` as keyword arguments; the checker holds the two lists together."""

    image: str | bytes | None
    text: str | None
    id: str | None
    k: int | None
    where: str | None
    at: int | None
    weight_image: float
    allow_private_hosts: bool
    against: Against | None
    like: tuple[str | Query, ...]
    unlike: tuple[str | Query, ...]
    strategy: Strategy
    offset: int
    min_similarity: float | None
    one_per: str | None
    diverse: float | None
    facets: tuple[str, ...]
    mode: Mode
    weight_keywords: float
    stem: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """A stored product by `id`, or a picture, a text or both, or examples; and how to answer.

    `image` is a path, an http(s) URL or a picture's bytes. `k` neighbours; None: 10 of `similar`,
    of `classify` as many as the probe chose. `where` narrows the neighbours, `at` names the
    generation (None: the newest), `weight_image` from 0 to 1 is how much the picture counts,
    `allow_private_hosts` lets a URL lead into the own network.

    The others are of `similar` alone. A text or a picture by itself is compared with pictures,
    texts or both of the products (`against`, None: a text with both; see `store.similar.cross`).
    `like` and `unlike` are examples, each an id, a path, a URL, a text or a `Query`
    (`store.similar.examples` has the formulas of `strategy`). `offset` leaves out the nearest so
    many, `min_similarity` what is less near, `one_per` all but the nearest of each value of a
    column; `diverse` from 0 to 1 chooses by maximal marginal relevance among the 200 nearest, 1 is
    plain search. `facets` are columns whose values are counted among the products that match
    `where`.

    `mode` finds by meaning (the embeddings), by keywords (BM25 of the words of the text, or of the
    stored product's; `stem` names their language) or by both, their ranks fused: `weight_keywords`
    from 0, meaning alone, to 1. Raises InputError.

    >>> Query(text="Wooden train", k=3).weight_image
    0.5
    """

    image: str | bytes | None = None
    text: str | None = None
    id: str | None = None
    k: int | None = None
    where: str | None = None
    at: int | None = None
    weight_image: float = 0.5
    allow_private_hosts: bool = False
    against: Against | None = None
    like: tuple[str | Query, ...] = ()
    unlike: tuple[str | Query, ...] = ()
    strategy: Strategy = "average"
    offset: int = 0
    min_similarity: float | None = None
    one_per: str | None = None
    diverse: float | None = None
    facets: tuple[str, ...] = ()
    mode: Mode = "meaning"
    weight_keywords: float = 0.5
    stem: str | None = None

    def __post_init__(self) -> None:
        given = bool(self.image or self.text)
        if self.id is not None and given:
            raise InputError(f"id {self.id!r} with an image or a text: give the one or the other")
        if self.k is not None and self.k < 1:
            raise InputError(f"k is {self.k}: ask for 1 neighbour or more")
        if not 0 <= self.weight_image <= 1:
            raise InputError(f"weight_image is {self.weight_image}: give a number from 0 to 1")
        if self.against is not None and bool(self.image) == bool(self.text):
            raise InputError(
                f"against is {self.against!r}: give a text alone or a picture alone to compare"
            )
        self._check_examples(given or self.id is not None)
        self._check_choice()

    def _check_examples(self, given: bool) -> None:
        for name in ("like", "unlike"):  # a list is taken too, and compared as a tuple
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if given and (self.like or self.unlike):
            raise InputError("like or unlike with an id, an image or a text: give it as a `like`")
        if self.unlike and not self.like:
            raise InputError("unlike without like: give a product to be near to")

    def _check_choice(self) -> None:
        object.__setattr__(self, "facets", tuple(self.facets))
        for name, kind in (("against", Against), ("strategy", Strategy), ("mode", Mode)):
            value, known = getattr(self, name), get_args(kind)
            if value is not None and value not in known:
                raise InputError(f"{name} is {value!r}: give one of {', '.join(known)}")
        if not 0 <= self.weight_keywords <= 1:
            raise InputError(
                f"weight_keywords is {self.weight_keywords}: give a number from 0 to 1"
            )
        if self.mode == "meaning" and self.stem is not None:
            raise InputError(f"stem is {self.stem!r} with mode 'meaning': it is for words")
        if self.mode != "hybrid" and self.weight_keywords != 0.5:
            raise InputError(
                f"weight_keywords is {self.weight_keywords} with mode {self.mode!r}: it weighs the"
                " words of mode 'hybrid'"
            )
        if self.strategy != "average" and not self.like:
            raise InputError(f"strategy is {self.strategy!r} without `like`: it joins examples")
        if self.mode != "meaning" and self.like:
            raise InputError(f"mode is {self.mode!r} with examples: give a text or an id")
        if self.offset < 0:
            raise InputError(f"offset is {self.offset}: give 0 or more")
        if self.min_similarity is not None and math.isnan(self.min_similarity):
            raise InputError("min_similarity is nan: give a number from -1 to 1")
        if self.diverse is None:
            return
        if not 0 <= self.diverse <= 1:
            raise InputError(f"diverse is {self.diverse}: give a number from 0 to 1")
        if self.offset + (self.k or 1) > CANDIDATES:
            raise InputError(
                f"diverse chooses among the {CANDIDATES} nearest: offset {self.offset} and k"
                f" {self.k} lie beyond them"
            )

    @classmethod
    def of(cls, query: Self | None, fields: QueryFields) -> Self:
        """The query itself with those fields changed, or one made of the fields alone."""
        return cls(**fields) if query is None else replace(query, **fields)

    @property
    def is_stored(self) -> bool:
        """Whether nothing needs an encoder: all that is asked about is named by its id, or is words
        that are looked up as such."""
        examples = (*self.like, *self.unlike)
        if self.mode == "keywords":
            return True
        if not examples:
            return self.id is not None
        return all(isinstance(each, Query) and each.id is not None for each in examples)

    def beyond(self, *known: str) -> list[str]:
        """The names of the fields, other than those known, that are not at their default."""
        return [
            each.name
            for each in fields(self)
            if each.name not in known and getattr(self, each.name) != each.default
        ]
