"""The work of bench/peers.py: vectors, metadata, filters and the right answers, made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peers_base import Filter, FloatArray, IntArray, Rows
from vectors import WIDTH, Kind

QUERIES, MANY, MORE = 200, 1000, 3000
K = 10
SHARES = (50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05)
"""Per cent of the rows that the filters of the sweep keep."""


class Work:
    """What was prepared in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.plan: dict[str, Any] = json.loads((directory / "plan.json").read_text())

    def array(self, name: str) -> Any:
        """`queries` (200, 1024), `many` (1000, 1024) or `vectors`, in memory."""
        return np.load(self.directory / f"{name}.npy")

    def rows(self) -> Rows:
        """All products."""
        names = self.array("categories"), self.array("brands")
        return _rows(0, self.array("vectors"), *names, self.array("prices"))

    def more(self) -> list[Rows]:
        """Three times 1,000 more."""
        vectors, first = self.array("more"), self.plan["rows"]
        codes = np.zeros(len(vectors), dtype=int)
        return _rows(first, vectors, codes, codes, np.zeros(len(vectors))).parts(1000)


def _rows(
    first: int, vectors: FloatArray, categories: IntArray, brands: IntArray, prices: FloatArray
) -> Rows:
    names = [f"c{i}" for i in categories.tolist()], [f"b{i}" for i in brands.tolist()]
    return Rows(first, vectors, *names, prices)


def prepare(directory: Path, rows: int, kind: Kind) -> Work:
    """Make the work, unless the directory holds it; exits if what it holds is of other data."""
    if not (directory / "plan.json").exists():
        directory.mkdir(parents=True, exist_ok=True)
        made = kind.vectors(rows, 0).reshape(rows, 2 * WIDTH)
        asked, many, more = (
            kind.vectors(count, seed).reshape(count, 2 * WIDTH)
            for seed, count in ((1, QUERIES), (2, MANY), (3, MORE))
        )
        groups = {"categories": alike(made, 10), "brands": alike(made, 100)}
        # Of a price below 50 are exactly 50 %, and so on, whatever the vectors are like.
        prices = 100 * np.random.default_rng(4).permutation(rows) / rows
        arrays = {"vectors": made, "queries": asked, "many": many, "more": more, "prices": prices}
        for name, array in (arrays | groups).items():
            np.save(directory / f"{name}.npy", array)
        plan = {"rows": rows, "data": str(kind), "many": nearest(made @ many.T)}
        plan |= _cases(made, asked, groups, prices)
        (directory / "plan.json").write_text(json.dumps(plan))
    work = Work(directory)
    if work.plan["data"] != str(kind):
        raise SystemExit(f"{directory} holds {work.plan['data']}, not {kind}: remove it")
    return work


def alike(vectors: FloatArray, count: int) -> IntArray:
    """Groups of one size each of products that lie together: around products drawn in turn."""
    random, group = np.random.default_rng(count), np.zeros(len(vectors), dtype=np.int64)
    free = np.arange(len(vectors))
    for number in range(count - 1, 0, -1):
        centre = vectors[random.choice(free)]
        near = np.argsort(-(vectors[free] @ centre))[: round(len(vectors) / count)]
        group[free[near]] = number
        free = np.delete(free, near)
    return group


def nearest(similarities: FloatArray, keep: Any = None) -> list[list[int]]:
    """The K best places of each column, among those kept."""
    places = np.arange(len(similarities)) if keep is None else np.flatnonzero(keep)
    kept = similarities if keep is None else similarities[places]
    count = min(K, len(places))
    best = np.argpartition(-kept, count - 1, axis=0)[:count] if count else np.empty((0, 1), int)
    found: list[list[int]] = places[best.T].tolist()
    return found


def _cases(
    vectors: FloatArray, asked: FloatArray, groups: dict[str, IntArray], prices: FloatArray
) -> dict[str, Any]:
    similarities = vectors @ asked.T
    plain = nearest(similarities)
    cases: dict[str, list[dict[str, Any]]] = {}
    for column, name, share in (("brands", "brand", 1), ("categories", "category", 10)):
        group = groups[column]
        own = group[[truth[0] for truth in plain]]
        means = np.stack([vectors[group == g].mean(axis=0) for g in range(group.max() + 1)])
        other = np.argmin(asked @ means.T, axis=1)
        for kind, chosen in (("own", own), ("other", other)):
            keeps = ((Filter(name, f"{name[0]}{g}"), group == g) for g in chosen.tolist())
            cases[f"{share} % {kind}"] = list(_answers(similarities, keeps))
    for share in SHARES:
        keeps = ((Filter("price", float(share)), prices < share) for _ in asked)
        cases[f"{share} %"] = list(_answers(similarities, keeps, 60))
    return {"plain": plain, "cases": cases}


def _answers(
    similarities: FloatArray, keeps: Iterator[tuple[Filter, Any]], most: int = QUERIES
) -> Iterator[dict[str, Any]]:
    """Query by query: its filter and what it should find."""
    for query, (where, keep) in enumerate(keeps):
        if query < most:
            right = nearest(similarities[:, query : query + 1], keep)[0]
            yield {"column": where.column, "value": where.value, "truth": right}
