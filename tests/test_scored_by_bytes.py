"""Every row scored, by the graph's bytes first: as NumPy would, and not all of it in memory."""

from __future__ import annotations

import mmap
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_index import WIDTH, drop, made, put

from kinshelf import Shelf
from kinshelf.store.search import fusion, lifecycle, planner

pytestmark = pytest.mark.usefixtures("bytes_pay_from_the_first_row")


@pytest.fixture(autouse=True)
def bytes_pay_from_the_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "MINIMUM_BYTES", 2000 * 2 * WIDTH * 4)
    monkeypatch.setattr(planner, "_CODED", 0)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    """3,000 products in a graph, 300 after it, every seventh removed."""
    path = tmp_path / "toys.shelf"
    Shelf.create(path, encoder="supplied").close()
    with Shelf.open(path) as first:
        put(first, *made(3000, 0))
    with Shelf.open(path) as opened:
        put(opened, *made(300, 5), first=3000)
        drop(opened, np.arange(0, 3300, 7))
        yield opened


def expected(shelf: Shelf, query: np.ndarray, keep: np.ndarray, weight: float) -> np.ndarray:
    """The rows in the order of their similarity, by NumPy over what is stored."""
    rows = np.flatnonzero(keep)
    scores = shelf.snapshot().pairs(rows) @ fusion.Weighting(weight).query(query[None])[0]
    return rows[np.argsort(-scores, kind="stable")]


@pytest.mark.parametrize("weight", [0.5, 0.2])
@pytest.mark.parametrize("at", [None, 3100, 2000])
def test_it_is_what_numpy_finds_whatever_was_removed_or_added_since(
    shelf: Shelf, weight: float, at: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, by_bytes = made(20, 9)[0], []
    plainly = planner._by_bytes
    monkeypatch.setattr(
        planner, "_by_bytes", lambda *a: by_bytes.append(plainly(*a)) or by_bytes[-1]
    )
    snapshot = shelf.snapshot()
    kept = np.arange(3300) % 7 > 0
    if at is not None:
        kept &= np.random.default_rng(at).random(3300) < at / 6000
    for query in asked:
        found = snapshot.kneighbors(
            query[None], 10, among=np.flatnonzero(kept) if at else None, weight_image=weight
        )
        if found.exhaustive:
            np.testing.assert_array_equal(found.rows[0], expected(shelf, query, kept, weight)[:10])
    assert any(by_bytes) or (at is None and weight == 0.5)


def test_many_copies_of_one_product_are_all_nearer_than_any_other(tmp_path: Path) -> None:
    """More of them than are looked at closely: their bytes cannot say what is nearest."""
    path = tmp_path / "toys.shelf"
    rows, groups = made(3000, 0)
    rows[::10] = rows[0]
    with Shelf.create(path, encoder="supplied") as shelf:
        put(shelf, rows, groups)
    with Shelf.open(path) as shelf:
        found = shelf.snapshot().kneighbors(rows[:1], 10, weight_image=0.3)
    assert not (found.rows[0] % 10).any()


LOOKING = """
import sys, numpy as np
from kinshelf.store.search import exact as index, paging as residence
residence.LARGE, residence.AT_ONCE = 1 << 20, 8 << 20
import faiss
def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith("RssFile")) / 1024
vectors = np.memmap(sys.argv[1], np.float32, "r", shape=(40_000, 1024))
query, before = np.ones((1, 1024), np.float32), resident()
random = np.random.default_rng(0)
most = 0.0
for i in range(20):
    index.exact(vectors[:, : 512 * (1 + i % 2)], query[:, : 512 * (1 + i % 2)], 10)
    index.exact_among(vectors, np.sort(random.choice(40_000, 2000, replace=False)), query, 10)
    index.products_by_place(vectors, random.integers(0, 40_000, (1, 50)), query)
    most = max(most, resident() - before)
print(most)
"""


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="needs Linux")
def test_looking_at_all_of_a_large_mapping_does_not_keep_it_resident(tmp_path: Path) -> None:
    path = tmp_path / "vectors.f32"
    with path.open("wb") as file:
        for _ in range(40):
            file.write(np.ones((1000, 1024), np.float32).tobytes())
    done = subprocess.run(
        [sys.executable, "-c", LOOKING, str(path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 90  # of 156 MB, in a chunk of at most 64
