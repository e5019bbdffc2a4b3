"""`verify --repair` against an oracle: what the undamaged frames say, and nothing else.

A byte of a small shelf's log or vectors is flipped. The oracle reads the frames of the whole log by
itself, leaves out the one that holds the flipped byte, and plays the rest.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from conftest import unit

from kinshelf import Shelf
from kinshelf.db.product import Product
from kinshelf.store.maintain import rewrite
from kinshelf.store.maintain.repair import repair
from kinshelf.store.maintain.verify import verify_path

FILES = ("log-1.wal", "vectors-1.f32")
DIMENSION = 4
ROW = 2 * DIMENSION * 4


def put(shelf: Shelf, names: list[str], seed: int) -> None:
    products = [Product(n, f"{n} of {seed}", category="Toys") for n in names]
    rng = np.random.default_rng(seed)
    image, text = (unit(rng.standard_normal((len(names), DIMENSION))) for _ in "it")
    shelf.upsert(products, image, text)


def make(path: Path) -> Path:
    """A compacted shelf whose base has parts of two products, and four changes after it."""
    with Shelf.create(path, encoder="fake") as shelf:
        put(shelf, [f"a{i}" for i in range(5)], 1)
        put(shelf, ["a1", "b0"], 2)
        patch = pytest.MonkeyPatch()
        patch.setattr(rewrite, "PART", 2)
        shelf.compact()
        patch.undo()
        put(shelf, ["c0", "c1", "c2"], 3)
        put(shelf, ["a2", "c0"], 4)
        shelf.remove(["a3", "c2"])
        put(shelf, ["c0", "d0"], 6)
    return path


@dataclass
class Part:
    """A frame of the log, read by the format's description alone."""

    start: int
    stop: int
    head: dict[str, Any]
    body: dict[str, Any]


def parts_of(log: bytes) -> Iterator[Part]:
    start = 0
    while start < len(log):
        magic, _, head, body, _, _ = struct.unpack_from("<4sQQQII", log, start)
        assert magic == b"KSL1"
        middle, stop = start + 36 + head, start + 36 + head + body
        content = json.loads(log[middle:stop]) if body else {}
        yield Part(start, stop, json.loads(log[start + 36 : middle]), content)
        start = stop


def expected(parts: list[Part], vectors: bytes, *, lost: int = -1, bad: int = -1) -> dict[str, Any]:
    """Title and vector by id, without the frame at `lost` and the vectors of the one at `bad`."""
    rows: dict[int, tuple[str, str, bytes]] = {}
    first = min(p.head["first"] for p in parts if "first" in p.head)
    for place, part in enumerate(parts):
        if place == lost:
            continue
        for row in part.head.get("removed", ()):
            rows.pop(row, None)
        products = part.body.get("products") if place != bad else None
        for row, name, title in (
            zip(*(products[c] for c in ("row", "id", "title")), strict=True) if products else ()
        ):
            at = (row - first) * ROW
            rows[row] = (name, title, vectors[at : at + ROW])
    return {name: (title, data) for _, (name, title, data) in sorted(rows.items())}


def state_of(path: Path) -> dict[str, Any]:
    with Shelf.open(path) as shelf:
        now = shelf.snapshot()
        found = {
            s.product.id: (s.product.title, now.pairs([s.row]).tobytes()) for s in now.select()
        }
        assert len(found) == now.count  # no id twice
        return found


def damage(path: Path) -> list[str]:
    return [f.problem for f in verify_path(path)[0] if not f.harmless]


def check(made: Path, path: Path, file: str, place: int, *, derived: bool) -> None:
    log, vectors = ((made / name).read_bytes() for name in ("log-1.wal", "vectors-1.f32"))
    parts = list(parts_of(log))
    path = Path(shutil.copytree(made, path))
    if not derived:
        (path / "catalog.duckdb").unlink()
    data = bytearray((path / file).read_bytes())
    data[place] ^= 0x10
    (path / file).write_bytes(data)
    whole = expected(parts, vectors)
    if file.startswith("log"):
        lost = next(i for i, p in enumerate(parts) if p.start <= place < p.stop)
        left = expected(parts, vectors, lost=lost)
        if derived:  # the catalogue knows what a lost change took away
            left = {
                n: v for n, v in left.items() if n in whole or "removed" not in parts[lost].head
            }
    else:
        row = place // ROW
        first = min(p.head["first"] for p in parts if "first" in p.head)
        bad = next(i for i, p in enumerate(parts) if "first" in p.head
                   and 0 <= first + row - p.head["first"] < p.head["rows"])  # fmt: skip
        left = expected(parts, vectors, bad=bad)
    assert damage(path)
    report = repair(path)
    assert damage(path) == []
    found = state_of(path)
    assert found == left
    if derived or not file.startswith("log"):
        changed = {n for n in whole if found.get(n) != whole[n]}
        assert changed <= set(report.lost_products)
    again = repair(path)
    assert again.done == [] and state_of(path) == left


def run(directory: Path, seed: str, count: int) -> Counter[str]:
    """`count` bytes at random, each flipped and repaired by itself; how many of which file."""
    random, made, outcomes = Random(seed), make(directory / "made.shelf"), Counter[str]()
    for _ in range(count):
        file, derived = random.choice(FILES), random.random() < 0.5
        place = random.randrange((made / file).stat().st_size)
        check(made, directory / "toys.shelf", file, place, derived=derived)
        shutil.rmtree(directory / "toys.shelf")
        outcomes[file] += 1
    return outcomes
