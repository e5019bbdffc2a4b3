"""What is asked of a shelf: the one list of an image, a text, an id and how to answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, TypedDict

from kinshelf.db.errors import InputError


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


@dataclass(frozen=True, slots=True)
class Query:
    """A stored product by `id`, or a picture, a text or both; and how to answer.

    `image` is a path, an http(s) URL or a picture's bytes. `k` neighbours; None: 10 of `similar`,
    of `classify` as many as the probe chose. `where` narrows the neighbours, `at` names the
    generation (None: the newest), `weight_image` from 0 to 1 is how much the picture counts,
    `allow_private_hosts` lets a URL lead into the own network. Raises InputError.

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

    def __post_init__(self) -> None:
        if self.id is not None and (self.image or self.text):
            raise InputError(f"id {self.id!r} with an image or a text: give the one or the other")
        if self.k is not None and self.k < 1:
            raise InputError(f"k is {self.k}: ask for 1 neighbour or more")
        if not 0 <= self.weight_image <= 1:
            raise InputError(f"weight_image is {self.weight_image}: give a number from 0 to 1")

    @classmethod
    def of(cls, query: Self | None, fields: QueryFields) -> Self:
        """The query itself with those fields changed, or one made of the fields alone."""
        return cls(**fields) if query is None else replace(query, **fields)
