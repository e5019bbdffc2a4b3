"""The facets of a shelf as a page shows them: panels of links, and the categories as a tree."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kinshelf.db.catalog.facets import Facet, Facets, count_facets, facet_names
from kinshelf.serve.pages.shelf.finding import (
    BETWEEN,
    Finding,
    choice_of,
    choices_of,
    kinds_of,
    parted,
)

if TYPE_CHECKING:
    from kinshelf.store.generation import AnySnapshot

STANDARD = ("category", "brand", "price", "has_image", "category_source", "split")
TITLES = {
    "has_image": "Picture", "has_text": "Text", "category_source": "Category set by",
    "image_error": "Picture failed",
}  # fmt: skip
WORDS = {
    ("has_image", "true"): "with a picture", ("has_image", "false"): "without a picture",
    ("category_source", "feed"): "the source", ("category_source", "person"): "a person",
    ("category_source", "predicted"): "the probe", ("category_source", None): "nobody yet",
}  # fmt: skip
STEP = " \u203a "
"""What stands between the parts of a category's path for people."""
SHOWN = 8
"""Values of a facet before the others are folded; `LISTED` are listed at all."""
LISTED = 60
NODES = 300
"""Categories up to which the whole tree is in the page; of more, the open branches alone."""
_KEPT = 32


class Facetted:
    """Counts facets, and remembers the newest: going from page to page costs nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def _get(self, key: tuple[Any, ...], make: Any) -> Any:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made

    def names(self, now: AnySnapshot) -> list[str]:
        """The attributes that make good facets."""
        found: list[str] = self._get((now.generation, "names"), lambda: facet_names(now.view))
        return found

    def count(self, now: AnySnapshot, finding: Finding) -> Facets:
        """The facets of an address. Raises FilterError."""
        kinds = kinds_of(now)
        names = (*STANDARD, *finding.facets, *finding.chosen)
        base, own = finding.base(now), finding.own(kinds)
        key = (now.generation, names, base, *own.items())

        def make() -> Facets:
            return count_facets(
                now.view, names, now.filter(base), limit=LISTED, whole=("category",),
                own={name: now.filter(text) for name, text in own.items()},
            )  # fmt: skip

        found: Facets = self._get(key, make)
        return found

    def leaves(self, now: AnySnapshot) -> Leaves:
        """The categories of the shelf and their short names."""
        found: Leaves = self._get(
            (now.generation, "leaves"),
            lambda: Leaves.of(sorted(filter(None, now.view.categories()))),
        )
        return found


@dataclass(frozen=True, slots=True)
class Leaves:
    """The last part of each category; with its parent where several categories share it."""

    names: tuple[str, ...]
    shared: frozenset[str]

    @classmethod
    def of(cls, categories: Sequence[str]) -> Leaves:
        """Of all categories of a shelf."""
        seen, shared = set[str](), set[str]()
        for category in categories:
            leaf = category.rpartition(BETWEEN)[2]
            (shared if leaf in seen else seen).add(leaf)
        return cls(tuple(categories), frozenset(shared))

    def like(self, words: str) -> list[str]:
        """The categories that hold all words, for somebody who types."""
        wanted = words.lower().split()
        every = (one for one in self.names if all(word in one.lower() for word in wanted))
        return list(itertools.islice(every, LISTED))

    def short(self, category: str | None) -> str:
        """A category's name where there is little room."""
        if category is None:
            return "no category"
        parts = category.split(BETWEEN)
        return STEP.join(parts[-2:] if parts[-1] in self.shared else parts[-1:])


def titled(name: str) -> str:
    """A facet's heading."""
    return TITLES.get(name, name[:1].upper() + name[1:])


def worded(name: str, value: str | None, words: str) -> str:
    """A value as people read it."""
    if value is None:
        return WORDS.get((name, None), f"no {titled(name).lower()}")
    if name == "category":
        return value.replace(BETWEEN, STEP)
    plain = {"true": "yes", "false": "no"}.get(words, words)
    return WORDS.get((name, value), plain)


def chips(finding: Finding) -> list[dict[str, str]]:
    """What is chosen, each with the address without it."""
    found = [
        {"name": titled(name), "words": worded(name, value, _range(value)),
         "href": finding.toggled(one)}
        for one in finding.choices for name, value in [parted(one)]
    ]  # fmt: skip
    if finding.q:
        found.insert(0, {"name": "Words", "words": finding.q, "href": finding.link(q="")})
    if finding.where:
        found.append({"name": "Condition", "words": finding.where, "href": finding.link(where="")})
    return found


def _range(value: str | None) -> str:
    low, dots, high = (value or "").partition("..")
    if not dots:
        return value or ""
    return f"{low} to {high}" if low and high else f"under {high}" if high else f"{low} on"


def panels(finding: Finding, found: Facets, others: Sequence[str]) -> list[dict[str, Any]]:
    """The facets but the category: name, title, values, whether it is a number; `others` without
    values, as these are counted when somebody opens them."""
    kept = [facet for name, facet in found.facets.items() if name != "category"]
    shown = [made for facet in kept if (made := panel(finding, facet))["rows"]]
    return shown + [
        {"name": name, "title": titled(name), "rows": None, "open": False,
         "href": finding.link(facets=(*finding.facets, name))}
        for name in others if name not in found.facets
    ]  # fmt: skip


def panel(finding: Finding, facet: Facet) -> dict[str, Any]:
    """A facet as the sidebar shows it."""
    chosen = finding.chosen.get(facet.name, [])
    rows = [
        _row(finding, facet.name, value, worded(facet.name, value, words), count)
        for value, words, count in choices_of(facet)
    ]  # fmt: skip
    known = {value for value, _, _ in choices_of(facet)}
    rows += [
        _row(finding, facet.name, value, worded(facet.name, value, _range(value)), None)
        for value in chosen if value not in known
    ]  # fmt: skip
    only = len(rows) == 1 and not chosen
    return {
        "name": facet.name, "title": titled(facet.name), "number": facet.kind == "number",
        "rows": [] if only and facet.kind != "number" else rows, "shown": SHOWN,
        "more": max(facet.distinct - LISTED, 0) if facet.kind != "number" else 0,
        "open": bool(chosen) or facet.name in (*STANDARD[:4], *finding.facets),
    }  # fmt: skip


def _row(
    finding: Finding, name: str, value: str | None, words: str, count: int | None
) -> dict[str, Any]:
    choice = choice_of(name, value)
    return {
        "words": words, "count": count, "href": finding.toggled(choice),
        "on": choice in finding.choices,
    }  # fmt: skip


def tree(finding: Finding, facet: Facet) -> dict[str, Any]:
    """The categories by their paths, each with the products in it and below."""
    root = _Node("", "")
    for path, count in facet.values:
        root.add(str(path).split(BETWEEN), count)
    every = root.size() <= NODES
    rows = [node.as_dict(finding, every=every) for node in root.sorted()]
    if facet.lacking:
        rows.append(
            _row(finding, "category", None, "no category", facet.lacking)
            | {"below": [], "path": ""}
        )
    return {"rows": rows, "count": facet.distinct, "every": every}


class _Node:
    """A part of a path, what it counts, and what lies below."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path, self.count = name, path, 0
        self.below: dict[str, _Node] = {}

    def add(self, parts: list[str], count: int) -> None:
        node = self
        node.count += count
        for part in parts:
            path = f"{node.path}{BETWEEN}{part}" if node.path else part
            node = node.below.setdefault(part, _Node(part, path))
            node.count += count

    def size(self) -> int:
        return sum(1 + node.size() for node in self.below.values())

    def sorted(self) -> list[_Node]:
        return sorted(self.below.values(), key=lambda node: (-node.count, node.name))

    def as_dict(self, finding: Finding, *, every: bool) -> dict[str, Any]:
        chosen = [str(value) for value in finding.chosen.get("category", []) if value]
        inside = any(f"{one}{BETWEEN}".startswith(f"{self.path}{BETWEEN}") for one in chosen)
        shown = self.sorted() if every or inside else []
        row = _row(finding, "category", self.path, self.name, self.count)
        return row | {
            "path": self.path.replace(BETWEEN, STEP), "open": inside, "kinds": len(self.below),
            "below": [node.as_dict(finding, every=every) for node in shown],
        }  # fmt: skip


def search_categories(finding: Finding, facet: Facet, words: str) -> list[dict[str, Any]]:
    """The categories whose path holds all words, the most frequent first."""
    wanted = words.lower().split()
    found = [
        _row(finding, "category", str(path), str(path).replace(BETWEEN, STEP), count)
        for path, count in facet.values
        if all(word in str(path).lower() for word in wanted)
    ]
    return found[:LISTED]
