"""What differs between two generations: products added, removed and changed, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import InputError
from kinshelf.store.ingest.merge import flat
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot

HALVES = ("image_embedding", "text_embedding")
_STATE = ("image_hash", "image_error", "has_image", "has_text")
_BLOCK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A product before and after, None where it was not there; `fields` are those that differ, with
    both values; of embeddings and origins the names alone."""

    id: str
    before: StoredProduct | None
    after: StoredProduct | None
    fields: dict[str, tuple[Any, Any]]

    @property
    def kind(self) -> str:
        """`added`, `removed` or `changed`."""
        if self.before is None:
            return "added"
        return "changed" if self.after else "removed"

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        fields = {name: {"from": one, "to": two} for name, (one, two) in self.fields.items()}
        return {"id": self.id, "change": self.kind, "fields": fields}


def differences(shelf: AnyShelf, before: int, after: int | None = None) -> Iterator[Change]:
    """The products that differ between two generations, `after` None: the newest, by id.

    Raises GenerationNotFound where one is no longer kept, or InputError where they are turned
    around.
    """
    for asked in (before, after or 0):
        if asked > shelf.generation:
            raise InputError(f"there is no generation {asked}: the newest is {shelf.generation}")
    new = shelf.snapshot(after)
    if before > new.generation:
        raise InputError(
            f"generation {before} came after {new.generation}: name the older one first"
        )
    yield from between(shelf.snapshot(before), new)


def between(old: AnySnapshot, new: AnySnapshot) -> Iterator[Change]:
    """The products that differ between two states of one shelf."""
    came, gone = new.view.replaced_since(old.generation)
    after = {s.product.id: s.row for s in new.view.by_rows(came).values()}
    before = {s.product.id: s.row for s in old.view.by_rows(gone).values()}
    ids = sorted(before.keys() | after.keys())
    for start in range(0, len(ids), _BLOCK):
        part = ids[start : start + _BLOCK]
        yield from _compared(old, new, part, before, after)


def _compared(
    old: AnySnapshot, new: AnySnapshot, ids: list[str], before: dict[str, int],
    after: dict[str, int],
) -> Iterator[Change]:  # fmt: skip
    rows = [[at[name] for name in ids if name in at] for at in (before, after)]
    then, now = old.view.by_rows(rows[0]), new.view.by_rows(rows[1])
    both = [name for name in ids if name in before and name in after]
    differ = _halves_differ(
        old.pairs([before[n] for n in both]), new.pairs([after[n] for n in both])
    )
    halves = dict(zip(both, differ, strict=True))
    for name in ids:
        one = then[before[name]] if name in before else None
        two = now[after[name]] if name in after else None
        fields = changes(one, two) | dict.fromkeys(halves.get(name, ()), (None, None))
        if fields or one is None or two is None:
            yield Change(name, one, two, fields)


def _halves_differ(one: FloatArray, two: FloatArray) -> list[list[str]]:
    """The embeddings of each row that differ in any bit."""
    sides = zip(fusion.split(one), fusion.split(two), strict=True)
    unequal = [np.any(a.view(np.uint32) != b.view(np.uint32), axis=1) for a, b in sides]
    return [
        [name for name, other in zip(HALVES, row, strict=True) if other]
        for row in zip(*unequal, strict=True)
    ]


def changes(one: StoredProduct | None, two: StoredProduct | None) -> dict[str, tuple[Any, Any]]:
    """The fields that differ, with both values; `origin.FIELD` is who set one."""
    before, after = (_values(each) if each else {} for each in (one, two))
    names = dict.fromkeys((*before, *after))
    return {
        n: (before.get(n), after.get(n)) for n in names if not _same(before.get(n), after.get(n))
    }


def changes_of(shelf: AnyShelf, product_id: str) -> list[dict[str, Any]]:
    """What became of a product, newest first: a row for each change that is kept, as in
    `operations`, with its `fields` before and after, {} where it came."""
    commits = {commit["generation"]: commit for commit in shelf.history()}
    found: list[dict[str, Any]] = []
    before: StoredProduct | None = None
    for stored in shelf.snapshot().view.versions(product_id):
        commit = commits.get(stored.added, {"generation": stored.added})
        fields = changes(before, stored) if before else {}
        found.append({**commit, "fields": fields, "came": before is None})
        before = stored
    return found[::-1]


def _same(one: Any, two: Any) -> bool:
    return type(one) is type(two) and one == two


def _values(stored: StoredProduct) -> dict[str, Any]:
    origins = {f"origin.{name}": decision for name, decision in stored.decided.items()}
    return flat(stored.product) | {name: getattr(stored, name) for name in _STATE} | origins
