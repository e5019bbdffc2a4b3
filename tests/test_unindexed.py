"""Rows after the graph, scored by signed bytes first: what exact search over all of them finds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_index import WIDTH, drop, made, put

from kinshelf import Shelf
from kinshelf.store import shelf as shelves
from kinshelf.store.search import fusion, lifecycle, planner, unindexed
from kinshelf.store.search.unindexed import UnindexedRows

pytestmark = pytest.mark.wide


@pytest.fixture(autouse=True)
def a_graph_pays_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "MINIMUM_BYTES", 2000 * 2 * WIDTH * 4)
    monkeypatch.setattr(planner, "ROWS_PER_STEP", 1)
    monkeypatch.setattr(shelves, "KEPT_UP", 1.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """3,000 products in a graph."""
    path = tmp_path / "toys.shelf"
    Shelf.create(path, encoder="supplied").close()
    with Shelf.open(path) as first:
        put(first, *made(3000, 0))
    return path


@pytest.fixture
def shelf(path: Path) -> Iterator[Shelf]:
    """And 700 after it, which there are bytes of."""
    with Shelf.open(path) as opened:
        opened.snapshot().kneighbors(made(1, 8)[0], 10)
        put(opened, *made(700, 5), first=3000)
        yield opened


def the_unindexed_rows(shelf: Shelf) -> UnindexedRows:
    graph = shelf.snapshot().searched().graph
    assert graph
    return graph.unindexed_rows


def expected(shelf: Shelf, query: np.ndarray, keep: np.ndarray, weight: float) -> np.ndarray:
    """The rows in the order of their similarity, by NumPy over what is stored."""
    rows = np.flatnonzero(keep)
    scores = shelf.snapshot().pairs(rows) @ fusion.Weighting(weight).query(query[None])[0]
    return rows[np.argsort(-scores, kind="stable")]


@pytest.fixture
def by_bytes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each question to unindexed rows was answered by its bytes."""
    answered: list[bool] = []
    plainly = UnindexedRows.nearest

    def watched(self: UnindexedRows, *arguments: object) -> object:
        found = plainly(self, *arguments)  # type: ignore[arg-type]
        answered.append(found[0] is not None)
        return found

    monkeypatch.setattr(UnindexedRows, "nearest", watched)
    return answered


@pytest.mark.parametrize("weight", [0.5, 0.0, 1.0])
@pytest.mark.parametrize("removed", [0, 7, 2])
def test_the_newest_rows_are_found_as_numpy_finds_them(
    shelf: Shelf, weight: float, removed: int, by_bytes: list[bool]
) -> None:
    keep = np.ones(3700, dtype=np.bool_)
    if removed:
        keep[3000::removed] = False
        drop(shelf, np.flatnonzero(~keep))
    by_bytes.clear()
    for query in made(700, 5)[0][1:60]:  # products of the unindexed rows, some of them removed
        found = shelf.snapshot().kneighbors(query[None], 10, weight_image=weight)
        truth = expected(shelf, query, keep, weight)[:10]
        assert set(truth[truth >= 3000]) <= set(found.rows[0])  # the graph may miss, they may not
        assert keep[found.rows[0]].all()
    assert any(by_bytes)


def test_a_snapshot_from_before_an_add_does_not_find_what_was_added(
    shelf: Shelf, by_bytes: list[bool]
) -> None:
    before = shelf.snapshot()
    vectors, groups = made(300, 11)
    put(shelf, vectors, groups, first=3700)
    assert the_unindexed_rows(shelf).stop == 4000
    assert before.kneighbors(vectors[:1], 10).rows.max() < 3700
    assert shelf.snapshot().kneighbors(vectors[:1], 1).rows[0, 0] == 3700


def test_rows_that_have_no_bytes_yet_are_found_too(shelf: Shelf) -> None:
    vectors, groups = made(40, 12)
    put(shelf, vectors, groups, first=3700)
    assert the_unindexed_rows(shelf).stop == 3700
    for i in range(40):
        assert shelf.snapshot().kneighbors(vectors[i : i + 1], 1).rows[0, 0] == 3700 + i


def test_copies_that_bytes_cannot_tell_apart_are_scored_by_their_vectors(
    path: Path, by_bytes: list[bool]
) -> None:
    """400 of nearly the same product, more than are looked at closely."""
    vectors = np.repeat(made(1, 3)[0], 400, axis=0)
    vectors = vectors + 1e-4 * np.random.default_rng(0).normal(size=vectors.shape)
    pairs = vectors.reshape(400, 2, -1)
    vectors = (pairs / np.linalg.norm(pairs, axis=2, keepdims=True)).reshape(400, -1)
    vectors = vectors.astype(np.float32)
    with Shelf.open(path) as shelf:
        shelf.snapshot().kneighbors(vectors[:1], 10)
        put(shelf, vectors, np.zeros(400, dtype=np.int64), first=3000)
        by_bytes.clear()
        for query in vectors[:20]:
            found = shelf.snapshot().kneighbors(query[None], 10)
            truth = expected(shelf, query, np.ones(3400, dtype=np.bool_), 0.5)[:10]
            scores = shelf.snapshot().pairs(truth) @ query / 2
            np.testing.assert_allclose(np.sort(found.similarities[0]), np.sort(scores), atol=1e-6)
    assert not all(by_bytes)


def test_a_reader_makes_bytes_once_it_was_asked_often_enough(path: Path) -> None:
    with Shelf.open(path) as reader:
        query = made(1, 8)[0]
        reader.snapshot().kneighbors(query, 10)
        with Shelf.open(path) as writer:
            put(writer, *made(300, 5), first=3000)
        stops = []
        for _ in range(2 * unindexed._PAYS):
            reader.snapshot().kneighbors(query, 10)
            stops.append(the_unindexed_rows(reader).stop)
    assert stops[0] == stops[unindexed._PAYS - 2] == 3000
    assert stops[-1] == 3300


def test_bytes_follow_when_later_rows_are_larger_than_all_before() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(900, WIDTH)).astype(np.float32)
    vectors[600:] *= 5
    grown, whole = UnindexedRows(0), UnindexedRows(0)
    grown.take_in(vectors[:600])
    for each in (grown, whole):
        each.take_in(vectors)
    queries = rng.normal(size=(3, WIDTH)).astype(np.float32)
    least = np.full(3, -np.inf, dtype=np.float32)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :5]
    for each in (grown, whole):
        found, stop = each.nearest(vectors, queries, least, 5, None)
        assert found is not None
        assert stop == 900
        np.testing.assert_array_equal(found[1], truth)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e20])
def test_queries_of_any_size_are_answered_without_a_warning(size: float) -> None:
    vectors = np.random.default_rng(4).normal(size=(400, WIDTH)).astype(np.float32)
    shared, query = UnindexedRows(0), vectors[7:8] * np.float32(size)
    shared.take_in(vectors)
    least = np.full(1, -np.inf, dtype=np.float32)
    found, _ = shared.nearest(vectors, query, least, 5, None)
    if size:
        assert found is not None
        np.testing.assert_array_equal(found[1][0], np.argsort(-(vectors @ query[0]))[:5])
    else:
        assert found is None  # all are as near: bytes cannot tell


def test_queries_go_on_while_another_thread_makes_bytes() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(20_000, WIDTH)).astype(np.float32)
    shared, done, wrong = UnindexedRows(0), threading.Event(), []
    shared.take_in(vectors[:300])

    def ask() -> None:
        least = np.full(1, -np.inf, dtype=np.float32)
        while not done.is_set():
            query = rng.normal(size=(1, WIDTH)).astype(np.float32)
            found, stop = shared.nearest(vectors, query, least, 5, None)
            if found and (found[1][0] != np.argsort(-(vectors[:stop] @ query[0]))[:5]).any():
                wrong.append(stop)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    for stop in range(600, 20_001, 300):
        shared.take_in(vectors[:stop])
    done.set()
    for thread in asking:
        thread.join()
    assert not wrong
    assert shared.stop > 300
