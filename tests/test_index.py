"""Search, exact and by the graph, against NumPy; when there is a graph, and what damage costs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import unit
from hypothesis import given, settings
from hypothesis import strategies as st

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db import threads
from kinshelf.db.errors import InputError
from kinshelf.db.product import Product
from kinshelf.store.log import disk
from kinshelf.store.maintain.repair import repair
from kinshelf.store.maintain.verify import verify_path
from kinshelf.store.search import hnsw, lifecycle
from kinshelf.store.search import recall as tuning
from kinshelf.store.search.exact import best, exact

pytestmark = pytest.mark.wide

ROWS, WIDTH, GROUPS = 4500, 24, 8


@pytest.fixture(autouse=True)
def small_shelves_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph pays from 2,000 rows on, as far as these tests are concerned."""
    monkeypatch.setattr(lifecycle, "MINIMUM_BYTES", 2000 * 2 * WIDTH * 4)
    monkeypatch.setattr(lifecycle, "UNINDEXED_ROWS", 500)


def made(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embedding pairs (count, 2 * WIDTH) in groups that lie apart, and the groups."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((GROUPS, 2, WIDTH))
    groups = random.integers(0, GROUPS, count)
    rows = centres[groups] + 0.9 * random.standard_normal((count, 2, WIDTH))
    return unit(rows.reshape(-1, WIDTH)).reshape(count, 2 * WIDTH), groups


def put(shelf: Shelf, rows: np.ndarray, groups: np.ndarray, first: int = 0) -> None:
    products = [
        Product(f"p{first + i}", f"title {i}", category=f"g{g}", price=float((first + i) % 100))
        for i, g in enumerate(groups)
    ]
    shelf.upsert(products, rows[:, :WIDTH], rows[:, WIDTH:])


def drop(shelf: Shelf, rows: np.ndarray) -> None:
    """Remove many products: `Shelf.remove` looks each id up."""
    with shelf.writing():
        counts = {"removed": len(rows)}
        shelf.commit({"kind": "remove", "removed": rows.tolist(), "counts": counts}, {})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A shelf of ROWS products with its graph."""
    patch = pytest.MonkeyPatch()
    patch.setattr(lifecycle, "MINIMUM_BYTES", 2000 * 2 * WIDTH * 4)
    path = tmp_path_factory.mktemp("built") / "toys.shelf"
    Shelf.create(path, encoder="supplied").close()
    with Shelf.open(path) as shelf:
        put(shelf, *made(ROWS, 0))
    patch.undo()
    return path


@pytest.fixture
def path(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "toys.shelf"))


def recall(found: np.ndarray, scores: np.ndarray, k: int) -> float:
    """The share of each query's true k nearest rows that were found; scores (n, rows)."""
    right = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(found, right, strict=True)]))


# ---- exact


@settings(max_examples=60)
@given(
    rows=st.integers(0, 70), queries=st.integers(0, 9), k=st.integers(1, 12),
    share=st.sampled_from([None, 0.0, 0.1, 0.6, 1.0]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_exact_search_is_a_sorted_list_of_inner_products(
    rows: int, queries: int, k: int, share: float | None, seed: int
) -> None:
    random = np.random.default_rng(seed)
    vectors = random.integers(-2, 3, (rows, 6)).astype(np.float32)  # sums are exact, ties common
    asked = random.integers(-2, 3, (queries, 6)).astype(np.float32)
    keep = None if share is None else random.random(rows) < share
    similarities, places = exact(vectors, asked, k, keep)
    assert similarities.shape == places.shape == (queries, k)
    allowed = np.arange(rows) if keep is None else np.flatnonzero(keep)
    for query, found, at in zip(asked, similarities, places, strict=True):
        scores = np.sort(vectors[allowed] @ query)[::-1][:k]
        count = len(scores)
        np.testing.assert_array_equal(found[:count], scores)
        assert set(at[:count]) <= set(allowed)
        assert len(set(at[:count])) == count
        np.testing.assert_array_equal(vectors[at[:count]] @ query, scores)
        assert (at[count:] == -1).all()
        assert np.isneginf(found[count:]).all()


@pytest.mark.parametrize("queries", [1, 4, 5])
def test_few_of_many_rows_are_scored_where_they_lie_as_numpy_scores_them(queries: int) -> None:
    import faiss  # noqa: F401  # once it is there, it is used

    random = np.random.default_rng(queries)
    vectors = random.integers(-9, 10, (3000, 32)).astype(np.float32)  # sums are exact
    asked = random.integers(-9, 10, (queries, 32)).astype(np.float32)
    keep = random.random(3000) < 0.1
    similarities, places = exact(vectors, asked, 7, keep)
    scores = np.where(keep, asked @ vectors.T, -np.inf)
    np.testing.assert_array_equal(similarities, -np.sort(-scores, axis=1)[:, :7])
    assert keep[places].all()
    np.testing.assert_array_equal(np.take_along_axis(scores, places, 1), similarities)


def test_the_best_are_ordered_by_similarity_then_place() -> None:
    found = best(np.array([[0.5, 0.9, 0.5]], dtype=np.float32), np.array([[7, 3, 2]]), 2)
    assert found[1].tolist() == [[3, 2]]


def test_a_small_shelf_has_no_graph_and_imports_no_faiss(tmp_path: Path) -> None:
    Shelf.create(tmp_path / "s", encoder="supplied").close()
    with Shelf.open(tmp_path / "s") as shelf:
        put(shelf, *made(50, 0))
    assert not list((tmp_path / "s").glob("index-*"))
    script = (
        "import sys; from kinshelf import Shelf; s = Shelf.open(sys.argv[1]);"
        " now = s.snapshot(); assert now.kneighbors(now.pairs([3]), 5).rows[0][0] == 3;"
        " assert not {'faiss', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "s")], check=True)


# ---- the graph


def test_the_graph_finds_what_exact_search_finds_and_states_it_is_approximate(path: Path) -> None:
    rows, _ = made(ROWS, 0)
    asked, _ = made(300, 1)
    with Shelf.open(path) as shelf:
        found = shelf.snapshot().kneighbors(asked, 10)
    assert not found.exhaustive
    assert recall(found.rows, asked @ rows.T, 10) >= 0.99
    right = np.take_along_axis(asked @ rows.T, found.rows, axis=1) / 2
    np.testing.assert_allclose(found.similarities, right, atol=1e-6)
    assert (np.diff(found.similarities, axis=1) <= 0).all()


@pytest.mark.parametrize("k", [1, 3, 30, 100])
def test_any_number_of_neighbours_is_found(path: Path, k: int) -> None:
    rows, _ = made(ROWS, 0)
    asked, _ = made(600, 2)
    with Shelf.open(path) as shelf:
        found = shelf.snapshot().kneighbors(asked, k)
    assert recall(found.rows, asked @ rows.T, k) >= 0.99


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("missing", [None, "image", "text"])
def test_pictures_and_texts_alone_and_weights_are_found_too(
    path: Path, weight: float, missing: str | None
) -> None:
    rows, _ = made(ROWS, 0)
    asked, _ = made(300, 3)
    if missing:
        asked[:, slice(0, WIDTH) if missing == "image" else slice(WIDTH, None)] = 0
    scores = weight * asked[:, :WIDTH] @ rows[:, :WIDTH].T
    scores += (1 - weight) * asked[:, WIDTH:] @ rows[:, WIDTH:].T
    with Shelf.open(path) as shelf:
        if not scores.any():
            with pytest.raises(InputError, match="weight_image"):
                shelf.snapshot().kneighbors(asked, 10, weight_image=weight)
            return
        found = shelf.snapshot().kneighbors(asked, 10, weight_image=weight)
    assert recall(found.rows, scores, 10) >= 0.99
    assert found.exhaustive or weight != 0.3 or missing


def test_queries_of_all_kinds_may_be_asked_together(path: Path) -> None:
    rows, _ = made(ROWS, 0)
    asked, _ = made(300, 4)
    asked[::3, :WIDTH] = 0
    asked[1::3, WIDTH:] = 0
    with Shelf.open(path) as shelf:
        found = shelf.snapshot().kneighbors(asked, 10)
    assert recall(found.rows, asked @ rows.T, 10) >= 0.99


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("own", [True, False])
def test_filters_lose_nothing_whatever_they_have_to_do_with_the_query(
    path: Path, share: float, *, own: bool
) -> None:
    """Whole groups are kept, and a share of them: the query's own group or others."""
    rows, groups = made(ROWS, 0)
    asked, asked_groups = made(40, 5)
    prices = np.arange(ROWS) % 100
    with Shelf.open(path) as shelf:
        now = shelf.snapshot()
        for query, group in zip(asked, asked_groups, strict=True):
            wanted = [group] if own else [(group + i) % GROUPS for i in range(1, 5)]
            names = ", ".join(f"'g{g}'" for g in wanted)
            limit = round(100 * share)
            found = now.kneighbors(
                query[None], 10, where=f"category IN ({names}) AND price < {limit}"
            )
            keep = np.isin(groups, wanted) & (prices < limit)
            scores = np.where(keep, rows @ query, -np.inf)[None]
            count = min(10, int(keep.sum()))
            assert keep[found.rows[0, :count]].all()
            assert recall(found.rows[:, :count], scores, count) >= 0.9
            assert (found.rows[0, count:] == -1).all()


def test_recall_with_half_of_the_products_filtered_out_is_that_without(path: Path) -> None:
    rows, groups = made(ROWS, 0)
    asked, asked_groups = made(150, 6)
    with Shelf.open(path) as shelf:
        now = shelf.snapshot()
        for step in (0, 4):
            hits = []
            for query, group in zip(asked, asked_groups, strict=True):
                wanted = [(group + step + i) % GROUPS for i in range(4)]
                names = ", ".join(f"'g{g}'" for g in wanted)
                found = now.kneighbors(query[None], 10, where=f"category IN ({names})")
                scores = np.where(np.isin(groups, wanted), rows @ query, -np.inf)[None]
                hits.append(recall(found.rows, scores, 10))
            assert np.mean(hits) >= 0.99


def test_removed_products_are_out_at_once_however_many_they_are(path: Path) -> None:
    rows, groups = made(ROWS, 0)
    asked, _ = made(100, 7)
    with Shelf.open(path) as shelf:
        first = shelf.snapshot()
        near = first.kneighbors(asked, 10)
        gone = np.unique(near.rows)
        shelf.remove([f"p{row}" for row in gone])
        found = shelf.snapshot().kneighbors(asked, 10)
        scores = asked @ rows.T
        scores[:, gone] = -np.inf
        assert not set(found.rows.ravel()) & set(gone)
        assert recall(found.rows, scores, 10) >= 0.99
        drop(shelf, np.setdiff1d(np.flatnonzero(groups != 2), gone))
        kept = np.setdiff1d(np.flatnonzero(groups == 2), gone)
        found = shelf.snapshot().kneighbors(asked, 10)
        scores = np.where(np.isin(np.arange(ROWS), kept), asked @ rows.T, -np.inf)
        assert recall(found.rows, scores, 10) >= 0.99
        assert np.array_equal(first.kneighbors(asked, 10).rows, near.rows)


def test_rows_added_since_are_found_at_once_and_taken_in_when_they_are_many(path: Path) -> None:
    more, groups = made(900, 8)
    everything = np.vstack([made(ROWS, 0)[0], more])
    with Shelf.open(path) as shelf:
        old = shelf.snapshot()
        put(shelf, more[:300], groups[:300], ROWS)
        now = shelf.snapshot()
        found = now.kneighbors(more[:300], 3)
        assert np.array_equal(found.rows[:, 0], np.arange(ROWS, ROWS + 300))
        assert recall(found.rows, more[:300] @ everything[: ROWS + 300].T, 3) >= 0.99
        reported = shelf.info()["index"]
        assert (reported["rows"], reported["tail"], reported["due"]) == (ROWS, 300, False)
        assert not shelf.build_index()
        put(shelf, more[300:], groups[300:], ROWS + 300)
        assert shelf.info()["index"]["due"]
        assert old.kneighbors(more[:50], 5).rows.max() < ROWS
    with Shelf.open(path) as shelf:
        reported = shelf.info()["index"]
        assert (reported["rows"], reported["tail"]) == (ROWS + 900, 0)
        found = shelf.snapshot().kneighbors(more, 5)
        assert recall(found.rows, more @ everything.T, 5) >= 0.99
    assert verify_path(path)[0] == []


def test_an_older_generation_is_searched_with_the_graph_of_today(path: Path) -> None:
    rows, _ = made(ROWS, 0)
    more, groups = made(900, 8)
    with Shelf.open(path) as shelf:
        at = shelf.generation
        put(shelf, more, groups, ROWS)
    asked, _ = made(300, 9)
    with Shelf.open(path) as shelf:
        found = shelf.snapshot(at).kneighbors(asked, 10)
    assert found.rows.max() < ROWS
    assert recall(found.rows, asked @ rows.T, 10) >= 0.99


def test_many_copies_of_one_product_do_not_cut_the_graph_in_pieces(tmp_path: Path) -> None:
    rows, groups = made(4000, 0)
    rows[1000:3000] = rows[7]
    Shelf.create(tmp_path / "s", encoder="supplied").close()
    with Shelf.open(tmp_path / "s") as shelf:
        put(shelf, rows, groups)
        shelf.build_index()
        asked, _ = made(300, 1)
        found = shelf.snapshot().kneighbors(asked, 10)
        right = np.sort(asked @ rows.T, axis=1)[:, ::-1][:, :10] / 2
        assert np.mean(found.similarities >= right[:, -1:] - 1e-6) >= 0.99


# ---- the file


def test_compaction_gets_a_graph_of_its_own(path: Path) -> None:
    with Shelf.open(path) as shelf:
        drop(shelf, np.arange(0, ROWS, 2))
        shelf.compact()
        assert shelf.info()["index"] == {
            "kind": "exact", "rows": ROWS // 2, "bytes": 0, "due": True
        }  # fmt: skip
    assert [p.name for p in sorted(path.glob("index-*"))] == [
        "index-1.faiss", "index-1.faiss.json"
    ]  # fmt: skip
    with Shelf.open(path) as shelf:
        assert shelf.info()["index"]["rows"] == ROWS // 2
    assert verify_path(path)[0] == []


@pytest.mark.parametrize(
    ("part", "how"),
    [("faiss", "flipped"), ("faiss", "cut"), ("faiss", "empty"), ("json", "flipped"),
     ("json", "missing"), ("faiss", "missing")],
)  # fmt: skip
def test_a_damaged_index_is_named_not_used_and_built_again(path: Path, part: str, how: str) -> None:
    file = path / ("index-0.faiss" if part == "faiss" else "index-0.faiss.json")
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    changed = {"flipped": bytes(data), "cut": bytes(data[: len(data) // 2]), "empty": b""}
    file.unlink()
    if how in changed:
        file.write_bytes(changed[how])
    asked, _ = made(20, 1)
    rows, _ = made(ROWS, 0)
    with Shelf.open(path) as shelf:
        found = shelf.snapshot().kneighbors(asked, 10)
        assert found.exhaustive
        assert recall(found.rows, asked @ rows.T, 10) == 1
    damage = [f.file for f in verify_path(path)[0] if not f.harmless]
    assert damage == ([] if how == "missing" else [file.name])
    if how == "flipped":  # building takes seconds: twice is enough
        return
    assert "built the index anew" in repair(path).done
    assert verify_path(path)[0] == []
    with Shelf.open(path) as shelf:
        assert not shelf.snapshot().kneighbors(asked, 10).exhaustive


def test_the_next_writer_builds_what_is_missing(path: Path) -> None:
    for file in path.glob("index-*"):
        file.unlink()
    with Shelf.open(path) as shelf:
        shelf.remove(["p1"])
    with Shelf.open(path) as shelf:
        assert shelf.info()["index"]["rows"] == ROWS


def test_the_index_of_other_vectors_is_not_used(path: Path, tmp_path: Path) -> None:
    Shelf.create(tmp_path / "other", encoder="supplied").close()
    rows, groups = made(ROWS, 77)
    with Shelf.open(tmp_path / "other") as shelf:
        put(shelf, rows, groups)
    for file in path.glob("index-*"):
        shutil.copy(file, tmp_path / "other" / file.name)
    with Shelf.open(tmp_path / "other") as shelf:
        found = shelf.snapshot().kneighbors(rows[:20], 3)
        assert found.exhaustive
        assert np.array_equal(found.rows[:, 0], np.arange(20))
    (note,) = verify_path(tmp_path / "other")[0]
    assert note.harmless


def test_an_interrupted_build_leaves_nothing_and_is_not_tried_again_by_this_handle(
    path: Path,
) -> None:
    for file in path.glob("index-*"):
        file.unlink()
    seen: list[tuple[int, int]] = []
    with Shelf.open(path) as shelf:
        shelf.remove(["p1"])
        stopped = shelf.build_index(
            stop=lambda: len(seen) > 1, progress=lambda done, all_: seen.append((done, all_))
        )
        assert not stopped
        assert seen[:2] == [(0, ROWS), (2048, ROWS)]
    assert not list(path.glob("*index-*"))
    with Shelf.open(path) as shelf:
        assert shelf.snapshot().kneighbors(made(3, 1)[0], 3).exhaustive
        with pytest.raises(KeyboardInterrupt):
            shelf.build_index(progress=interrupted)
        assert shelf.build_index()


def test_ctrl_c_while_adding_builds_no_index_on_the_way_out(path: Path) -> None:
    for file in path.glob("index-*"):
        file.unlink()
    with Shelf.open(path) as shelf:
        shelf.remove(["p1"])
        assert not shelf.build_index(stop=lambda: True)
    assert not list(path.glob("index-*"))


def interrupted(done: int, _all: int) -> None:
    if done:
        raise KeyboardInterrupt


def test_no_index_is_built_on_the_way_out_of_an_error(path: Path) -> None:
    for file in path.glob("index-*"):
        file.unlink()
    with pytest.raises(KeyboardInterrupt), Shelf.open(path) as shelf:
        shelf.remove(["p1"])
        raise KeyboardInterrupt
    assert not list(path.glob("index-*"))


def test_a_full_disk_costs_the_index_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    for file in path.glob("index-*"):
        file.unlink()
    with Shelf.open(path) as shelf:
        shelf.remove(["p1"])
        monkeypatch.setattr(disk, "sync_file", full)
    monkeypatch.undo()
    with Shelf.open(path) as shelf:
        assert shelf.snapshot().count == ROWS - 1
        assert shelf.snapshot().kneighbors(made(3, 1)[0], 3).exhaustive


def test_a_compaction_by_another_while_it_is_built_makes_the_graph_void(path: Path) -> None:
    for file in path.glob("index-*"):
        file.unlink()

    def compacted(done: int, _all: int) -> None:
        if done == ROWS:
            with Shelf.open(path) as other:
                other._index.declined = True
                other.compact()
                other._index.declined = True

    with Shelf.open(path) as shelf:
        assert not shelf.build_index(progress=compacted)
        assert not list(path.glob("index-0*"))
        assert shelf.snapshot().kneighbors(made(3, 1)[0], 3).exhaustive


def test_a_reader_in_another_process_goes_on_while_the_writer_builds(path: Path) -> None:
    reader = """
import sys, numpy as np
from kinshelf import Shelf
from kinshelf.store.search import lifecycle
lifecycle.MINIMUM_BYTES = int(sys.argv[2])
query = np.load(sys.argv[3])
with Shelf.open(sys.argv[1]) as shelf:
    print("ready", flush=True)
    for line in sys.stdin:
        found = shelf.snapshot().kneighbors(query, 5)
        print(found.exhaustive, *found.rows[0], flush=True)
"""
    for file in path.glob("index-*"):
        file.unlink()
    rows, _ = made(ROWS, 0)
    query, _ = made(1, 11)
    np.save(path.parent / "query.npy", query)
    right = " ".join(map(str, np.argsort(-(rows @ query[0]))[:5]))
    command = [sys.executable, "-c", reader, str(path), str(lifecycle.MINIMUM_BYTES),
               str(path.parent / "query.npy")]  # fmt: skip
    answers = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def ask(*_: int) -> None:
            process.stdin.write("?\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            answers.append(process.stdout.readline().strip())  # type: ignore[union-attr]

        with Shelf.open(path) as shelf:
            assert shelf.build_index(progress=ask)
        ask()
        process.stdin.close()
    assert answers[:-1] == [f"True {right}"] * (len(answers) - 1)
    assert len(answers) > 2
    assert answers[-1] == f"False {right}"


def test_the_index_that_versions_before_wrote_goes_with_the_next_change(path: Path) -> None:
    small = path.parent / "small.shelf"
    Shelf.create(small, encoder="supplied").close()
    with Shelf.open(small) as shelf:
        put(shelf, *made(30, 0))
    (small / "index-0.faiss").write_bytes(b"IxFI")
    (small / "index-0.faiss.json").write_text("{}\n0\n")
    with Shelf.open(small) as shelf:
        assert shelf.snapshot().kneighbors(made(30, 0)[0][:1], 1).rows[0, 0] == 0
        shelf.remove(["p3"])
    assert not list(small.glob("index-*"))


# ---- what it states of itself


@pytest.mark.parametrize(
    ("curve", "chosen"),
    [
        ({32: 0.999}, 32),  # the fewest there are
        ({32: 0.9, 48: 0.9925, 56: 0.9931, 64: 0.999}, 56),  # reached, with the margin
        ({32: 0.97, 128: 0.9915, 256: 0.9925, 512: 0.9928}, 128),  # reached but for the margin
        ({32: 0.9, 192: 0.9689, 224: 0.97, 4096: 0.9715}, 224),  # nothing beyond is worth it
        ({32: 0.5, 4096: 0.949}, None),  # of no use
    ],
)
def test_the_effort_is_the_least_that_reaches_the_recall_or_nearly_the_best(
    curve: dict[int, float], chosen: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recall(*asked: object) -> float:
        return max(found for steps, found in curve.items() if steps <= int(str(asked[-1])))

    monkeypatch.setattr(tuning, "_recall", recall)
    vectors = np.zeros((4096 * 20, 2), dtype=np.float32)
    asked = vectors[:1], np.ones(len(vectors), dtype=np.bool_)
    found = tuning._effort(None, vectors, asked, "both")  # type: ignore[arg-type]
    assert found.steps == chosen
    assert found.recall == (max(curve.values()) if chosen is None else recall(chosen))
    assert found.falls_short == (chosen is not None and found.recall < 0.99)


def test_a_graph_that_falls_short_is_used_and_its_recall_stated_wherever_one_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hnsw, "RECALL", 1.1)
    rows, groups = made(ROWS, 0)
    with Shelf.create(tmp_path / "toys.shelf", encoder="supplied") as shelf:
        put(shelf, rows, groups)
        assert shelf.build_index()
        shortfall = shelf.info()["index"]["shortfall"]
        assert "for whole products" in shortfall
        assert shortfall in caplog.text
        assert not shelf.snapshot().kneighbors(rows[:5], 3).exhaustive
        monkeypatch.setenv("KINSHELF_EXACT", "1")
        found = shelf.snapshot().kneighbors(rows[:5], 3)
        assert found.exhaustive
        assert np.array_equal(found.rows, np.argsort(-(rows[:5] @ rows.T), axis=1)[:, :3])
        monkeypatch.setenv("KINSHELF_EXACT", "yes")
        with pytest.raises(InputError, match="set it to 1"):
            shelf.snapshot().kneighbors(rows[:5], 3)
    monkeypatch.delenv("KINSHELF_EXACT")
    printed = CliRunner().invoke(main, ["info", "--shelf", str(tmp_path / "toys.shelf")]).output
    assert "KINSHELF_EXACT" in printed


def test_info_tells_the_index_and_measures_its_recall_when_asked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*options: str) -> str:
        done = CliRunner().invoke(main, ["info", "--shelf", str(path), *options])
        assert done.exit_code == 0, done.output
        return done.stdout

    reported = json.loads(run("--json"))["index"]
    size = (path / "index-0.faiss").stat().st_size
    assert (reported["kind"], reported["rows"], reported["bytes"]) == (hnsw.KIND, ROWS, size)
    assert reported["queries"]["both"]["recall@10"] >= 0.99
    assert "measured" not in reported
    now = json.loads(run("--json", "--recall"))["index"]["measured"]
    assert now["recall"] >= 0.985
    assert now["queries"] == 200
    assert not now["exhaustive"]
    assert "recall@10 now" in " ".join(run("--recall").split())
    monkeypatch.setattr(lifecycle, "MINIMUM_BYTES", 1 << 30)
    now = json.loads(run("--json", "--recall"))["index"]
    assert now["kind"] == "exact"
    assert (now["measured"]["recall"], now["measured"]["exhaustive"]) == (1, True)


def test_the_number_of_threads_is_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINSHELF_THREADS", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    faiss = threads.faiss_for(100)
    assert faiss.omp_get_max_threads() == 3
    assert threads.faiss_for(1).omp_get_max_threads() == 1
    threads.announce()
    import os

    assert (os.environ["OPENBLAS_NUM_THREADS"], os.environ["OMP_NUM_THREADS"]) == ("3", "5")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    for wrong in ("0", "-1", "many", "1.5"):
        monkeypatch.setenv("KINSHELF_THREADS", wrong)
        with pytest.raises(InputError, match="whole number"):
            threads.threads()
    monkeypatch.delenv("KINSHELF_THREADS")
    assert threads.threads() >= 1


def test_a_graph_that_does_not_help_costs_no_memory_and_is_not_built_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # out of reach, as for vectors without structure
    monkeypatch.setattr(hnsw, "RECALL", 1.1)
    monkeypatch.setattr(tuning, "_POOR", 1.1)
    where = tmp_path / "toys.shelf"
    Shelf.create(where, encoder="supplied").close()
    rows, groups = made(ROWS, 0)
    with Shelf.open(where) as shelf:
        put(shelf, rows, groups)
    with Shelf.open(where) as shelf:
        reported = shelf.info()["index"]
        assert (reported["kind"], reported["due"]) == ("exact", False)
        put(shelf, *made(600, 1), first=ROWS)
        assert not shelf.info()["index"]["due"]
        now = shelf.snapshot()
        found = now.kneighbors(rows[:5], 3)
        assert found.exhaustive
        assert found.rows[:, 0].tolist() == [int(row) for row in now.view.rows()[:5]]
    graph = hnsw.load(
        lifecycle.index_path(where, 0),
        hnsw.stated(lifecycle.index_path(where, 0))["anchor"],
        2 * WIDTH,
    )
    assert graph is not None
    assert graph.index is None
    assert not verify_path(where)[0]
