"""Rows that no row of the graph links to: linked after a build and after growth, and found."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from conftest import unit

from kinshelf import Shelf
from kinshelf.db.catalog.statement import seal, side_file
from kinshelf.db.product import Product
from kinshelf.store.search import hnsw, lifecycle
from kinshelf.store.search.links import held_out, link_all, unlinked

ROWS, WIDTH = 3000, 16


def made(count: int, seed: int) -> np.ndarray:
    """Embedding pairs (count, 2 * WIDTH) in tight groups, among which lists of links run full."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((12, 2, WIDTH))
    rows = centres[random.integers(0, 12, count)] + 0.3 * random.standard_normal((count, 2, WIDTH))
    return np.asarray(unit(rows.reshape(-1, WIDTH)).reshape(count, 2 * WIDTH), dtype=np.float32)


def links_of(index: faiss.IndexHNSWSQ) -> list[set[int]]:
    """What each row links to on the lowest level, read one by one as FAISS reads them."""
    links, offsets = map(faiss.vector_to_array, (index.hnsw.neighbors, index.hnsw.offsets))
    found = []
    for begin in offsets[:-1].tolist():
        own = links[begin : begin + index.hnsw.nb_neighbors(0)].tolist()
        found.append(set(own[: own.index(-1)] if -1 in own else own))
    return found


def lost(index: faiss.IndexHNSWSQ) -> set[int]:
    """The rows that nothing links to."""
    return set(range(index.ntotal)) - set().union(*links_of(index))


def graph_of(rows: np.ndarray, links: int, *, full: bool = False) -> faiss.IndexHNSWSQ:
    index = hnsw._untrained(faiss, rows.shape[1], links, 40)
    index.keep_max_size_level0 = full
    index.train(rows)
    index.add(rows)
    return index


@pytest.mark.parametrize("full", [True, False])
def test_every_row_is_linked_to_and_none_loses_its_last_link(*, full: bool) -> None:
    index = graph_of(made(ROWS, 0), 4, full=full)
    before, alone = links_of(index), lost(index)
    assert len(alone) > 20
    assert unlinked(index) == link_all(index) == len(alone)
    assert not lost(index)
    assert unlinked(index) == link_all(index) == 0
    changed = sum(one != other for one, other in zip(before, links_of(index), strict=True))
    assert 0 < changed <= len(alone)


def test_lists_of_links_that_are_full_give_up_one_to_a_row_with_others() -> None:
    index = graph_of(made(400, 0), 2)
    links = faiss.rev_swig_ptr(index.hnsw.neighbors.data(), index.hnsw.neighbors.size())
    offsets = faiss.vector_to_array(index.hnsw.offsets).astype(int)
    for row in range(400):  # a ring of which every list is full, and nothing links to row 7
        four = [(row + step) % 400 for step in (1, 2, 3, 4)]
        links[offsets[row] : offsets[row] + 4] = [8 if each == 7 else each for each in four]
    assert lost(index) == {7}
    assert link_all(index) == 1
    assert not lost(index)


def test_a_graph_of_one_row_or_none_has_no_row_to_link() -> None:
    for count in (0, 1):
        index = graph_of(made(3, 0), 4)
        index.reset()
        index.add(made(count, 0))
        assert link_all(index) == count
        assert unlinked(index) == count


def test_rows_that_are_held_out_are_found_by_no_search_until_they_are_back() -> None:
    rows = made(ROWS, 0)
    index = graph_of(rows, 8)
    link_all(index)
    graph = hnsw.Hnsw(index, hnsw.entry_points_of(rows), ROWS, ROWS, "", {})
    before, out = links_of(index), np.arange(3, ROWS, 20)
    with held_out(index, out):
        assert lost(index) >= set(out.tolist())
        found = graph.candidates(rows, 10, 64, "both")
        assert not set(found.ravel().tolist()) & set(out.tolist())
        others = np.setdiff1d(np.arange(ROWS), out)
        assert (found[others, 0] == others).mean() > 0.95
    assert links_of(index) == before
    assert (graph.candidates(rows[out], 10, 64, "both")[:, 0] == out).mean() > 0.95


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty shelf; a graph pays from 2,000 rows on."""
    monkeypatch.setattr(lifecycle, "MINIMUM_BYTES", 2000 * 2 * WIDTH * 4)
    monkeypatch.setattr(lifecycle, "UNINDEXED_ROWS", 200)
    Shelf.create(tmp_path / "toys.shelf", encoder="supplied").close()
    return tmp_path / "toys.shelf"


def put(shelf: Shelf, rows: np.ndarray, first: int) -> None:
    products = [Product(f"p{first + i}", "title") for i in range(len(rows))]
    shelf.upsert(products, rows[:, :WIDTH], rows[:, WIDTH:])


def test_a_shelf_finds_every_row_after_a_build_and_after_growth(toys: Path) -> None:
    rows = made(ROWS + 600, 0)
    with Shelf.open(toys) as shelf:
        for start, stop in ((0, ROWS), (ROWS, ROWS + 600)):
            put(shelf, rows[start:stop], start)
            assert shelf.build_index()
            graph = shelf.snapshot().searched().graph
            assert graph is not None
            assert not lost(graph.index)
            assert shelf.info()["index"]["unlinked"] == 0
        found = shelf.snapshot().kneighbors(rows, 1)
    assert not found.exhaustive
    # Exact search finds each row nearest to itself, and so does the graph.
    assert (found.rows[:, 0] == np.argmax(rows @ rows.T, axis=1)).mean() >= 0.999


def test_a_graph_that_an_older_version_made_with_other_numbers_is_used_and_grown(
    toys: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = made(ROWS + 600, 0)
    with monkeypatch.context() as older, Shelf.open(toys) as shelf:
        older.setattr(hnsw, "LINKS", 6)
        older.setattr(hnsw, "CONSTRUCTION", 30)
        put(shelf, rows[:ROWS], 0)
        assert shelf.build_index()
    path = lifecycle.index_path(toys, 0)
    state = hnsw.stated(path)
    assert state is not None
    del state["unlinked"]
    side_file(path).write_bytes(seal(state))
    caplog.clear()
    with Shelf.open(toys) as shelf:
        assert not shelf.snapshot().kneighbors(rows[:5], 3).exhaustive
        assert not caplog.text
        put(shelf, rows[ROWS:], ROWS)
        assert shelf.build_index()
        reported = shelf.info()["index"]
        assert (reported["rows"], reported["M"], reported["efConstruction"]) == (ROWS + 600, 6, 30)


def test_a_statement_of_numbers_that_no_graph_has_is_no_graph(toys: Path) -> None:
    with Shelf.open(toys) as shelf:
        put(shelf, made(2100, 0), 0)
        assert shelf.build_index()
    path = lifecycle.index_path(toys, 0)
    state = hnsw.stated(path)
    assert state is not None
    for odd in (0, 1, -1, 1 << 40, "24", None, 2.5, True):
        side_file(path).write_bytes(seal(state | {"links": odd}))
        assert hnsw.load(path, state["anchor"], 2 * WIDTH) is None
