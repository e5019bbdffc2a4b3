"""A shelf is a shelf: in a directory, in PostgreSQL with pgvector, in Milvus.

The same tests on each; what they expect is computed here, by NumPy and by plain Python.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import FakeEncoder
from engine_products import DIMENSION, SETTINGS, fill, products, similarities
from engines import KINDS, running
from similar_world import filled, filled_directory, halves

from kinshelf import Shelf
from kinshelf import create as create_shelf
from kinshelf import open as open_shelf
from kinshelf.cli import main
from kinshelf.db.catalog.facets import count_facets
from kinshelf.db.errors import (
    DuplicateId,
    EmptyShelf,
    EncoderMismatch,
    FilterError,
    GenerationNotFound,
    InvalidEmbeddings,
    ProductNotFound,
    ShelfExists,
    ShelfLocked,
    ShelfNotFound,
)
from kinshelf.db.product import Product
from kinshelf.probe.calibrate.policy import set_policy
from kinshelf.probe.evaluate.held_out import evaluate_shelf
from kinshelf.probe.fill.answers import classify_stored
from kinshelf.probe.predict.freshness import probe_facts
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.train import train_shelf
from kinshelf.store.base import AnyShelf
from kinshelf.store.operations.undo import undo
from kinshelf.store.query import Query
from kinshelf.store.similar.search import similar


@pytest.fixture(scope="module", params=list(KINDS))
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    with running(request.param) as engine:
        yield engine


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def place(engine: Any, request: pytest.FixtureRequest) -> Any:
    """An address where no shelf is yet."""
    name = "".join(c for c in request.node.name.split("[")[0] if c.isalnum())[-40:]
    return engine.address(f"t{name}")


@pytest.fixture
def shelf(place: Any) -> Iterator[AnyShelf]:
    with create_shelf(place, encoder="fake") as made:
        yield made


def ids_of(shelf: AnyShelf, rows: np.ndarray) -> list[str]:
    known = shelf.snapshot().view.by_rows(rows[rows >= 0])
    return [known[int(row)].product.id for row in rows if row >= 0]


def test_products_are_added_updated_and_removed_and_older_generations_still_answer(
    shelf: AnyShelf,
) -> None:
    made, pairs = fill(shelf, 40)
    image, text = np.split(pairs, 2, axis=1)
    assert shelf.upsert(made, image, text).unchanged == 40
    assert shelf.generation == 1
    changed = made[4].replace(title="Another title", attributes={"colour": "green"})
    report = shelf.upsert([changed, Product("new", title="n")], image[4:6], text[4:6])
    assert (report.inserted, report.updated) == (1, 1)
    assert shelf.remove(["p7", "p8"]) == 2
    with pytest.raises(ProductNotFound, match="nowhere"):
        shelf.remove(["p9", "nowhere"])
    assert shelf.relabel({"p9": "Books", "p12": "Books"}) == 2
    now = shelf.snapshot()
    assert (now.generation, now.count) == (4, 39)
    assert now.get("p4").product == changed
    assert now.get("p9").product == made[9].replace(category="Books")
    then = shelf.snapshot(1)
    assert then.count == 40
    assert then.get("p4").product == made[4]
    assert then.get("p7").product == made[7]
    np.testing.assert_array_equal(now.pairs([now.get("p4").row])[0], pairs[4])
    assert [c["kind"] for c in shelf.history()] == ["relabel", "remove", "add", "add"]
    with pytest.raises(GenerationNotFound):
        shelf.snapshot(5)
    with pytest.raises(DuplicateId):
        shelf.upsert([changed], image[:1], text[:1], on_conflict="error")


def test_compacting_forgets_what_only_older_generations_saw(shelf: AnyShelf) -> None:
    made, _ = fill(shelf, 20)
    shelf.remove([p.id for p in made[:5]])
    assert shelf.compact().rows_dropped == 5
    assert shelf.snapshot().count == 15
    assert [p.product.id for p in shelf.snapshot().select()] == [p.id for p in made[5:]]
    with pytest.raises(GenerationNotFound):
        shelf.snapshot(1)


def test_words_examples_variety_and_facets_are_those_of_a_directory(
    shelf: AnyShelf, tmp_path: Path
) -> None:
    image, text = halves()
    text[::3] = 0
    filled(shelf, image, text)
    examples = {"like": ("p3", "p8"), "unlike": ("p17",)}
    with filled_directory(tmp_path / "directory.shelf", image, text) as directory:
        for asked in (
            Query(text="q1"), Query(text="q1", against="image", where="price < 40"),
            Query(**examples), Query(**examples, strategy="best-score"),
            Query(id="p5", diverse=0.4, offset=3), Query(id="p5", mode="keywords"),
            Query(id="p5", mode="hybrid", where="price > 9"), Query(id="p5", one_per="brand", k=7),
            Query(id="p5", facets=("category", "price", "size", "brand"), where="price < 31"),
        ):  # fmt: skip
            found, expected = similar(shelf, asked), similar(directory, asked)
            assert [n.id for n in found.neighbours] == [n.id for n in expected.neighbours]
            assert found.facets == expected.facets
            assert found.exhaustive


def test_search_finds_what_numpy_finds(shelf: AnyShelf) -> None:
    made, pairs = fill(shelf, 150)
    shelf.remove(["p3", "p50"])
    there = np.array([p.id not in ("p3", "p50") for p in made])
    queries = np.hstack(products(12, seed=7)[1:])
    for weight in (0.5, 0.8, 1.0):
        given = queries.reshape(-1, 2, DIMENSION).any(axis=2) @ [weight, 1 - weight] > 0
        scores = similarities(queries[given], pairs, weight)
        scores[:, ~there] = -np.inf
        found = shelf.snapshot().kneighbors(queries[given], 7, weight_image=weight)
        best = -np.sort(-scores, axis=1)[:, :7]
        np.testing.assert_allclose(found.similarities, np.clip(best, -1, 1), atol=2e-6)
        assert found.exhaustive
    found = shelf.search(queries, 200)
    assert found.rows.shape == (12, 148)
    assert np.isnan(found.image_similarities).any()


def test_a_stored_product_is_similar_to_others_but_not_to_itself(shelf: AnyShelf) -> None:
    made, pairs = fill(shelf, 60)
    found = shelf.similar(id="p12", k=5)
    scores = similarities(pairs[12:13], pairs)[0]
    scores[12] = -np.inf
    assert [n.id for n in found.neighbours] == [made[i].id for i in np.argsort(-scores)[:5]]


FILTERS: dict[str, Callable[[Product], bool | None]] = {
    "price < 10": lambda p: None if p.price is None else p.price < 10,
    "NOT (price < 10)": lambda p: None if p.price is None else not p.price < 10,
    "NOT (price < 10 AND brand = 'O''Neill')": lambda p: (
        (p.price is not None and p.price >= 10) or (p.brand is not None and p.brand != "O'Neill")
    ),
    "price IS NULL OR brand IS NOT NULL": lambda p: p.price is None or p.brand is not None,
    "category = 'Books' AND price BETWEEN 3 AND 20.5": lambda p: (
        p.category == "Books" and p.price is not None and 3 <= p.price <= 20.5
    ),
    "category IN ('Books', 'Toys | Dolls')": lambda p: p.category in ("Books", "Toys | Dolls"),
    "category NOT IN ('Books', 'Toys | Dolls')": lambda p: (
        p.category is not None and p.category not in ("Books", "Toys | Dolls")
    ),
    "category IS DISTINCT FROM 'Books'": lambda p: p.category != "Books",
    "category LIKE 'Toys%' AND title NOT LIKE '%1'": lambda p: (
        (p.category or "").startswith("Toys") and not p.title.endswith("1")
    ),
    "title ILIKE 'thing NR 2_'": lambda p: len(p.title) == 11 and p.title[9] == "2",
    "colour = 'red' AND stock > 20": lambda p: (
        p.attributes.get("colour") == "red" and p.attributes["stock"] > 20  # type: ignore[operator]
    ),
    "colour <> 'red'": lambda p: p.attributes.get("colour", "red") != "red",
    "colour IS NULL": lambda p: "colour" not in p.attributes,
    "NOT (colour IS NULL) AND new": lambda p: p.attributes.get("new") is True,
    "stock IN (3, 4, 99)": lambda p: p.attributes.get("stock") in (3, 4, 99),
    "stock + 1 = price * 4 + 1": lambda p: (
        p.price is not None and "stock" in p.attributes and p.attributes["stock"] == p.price * 4
    ),
    "round(price) = 5 OR abs(price - 20) < 0.3": lambda p: (
        p.price is not None and (4.5 <= p.price < 5.5 or abs(p.price - 20) < 0.3)
    ),
    "lower(brand) || '!' = 'o''neill!'": lambda p: p.brand == "O'Neill",
    "regexp_matches(title, ' 1\\d$')": lambda p: p.title[-3:-1] == " 1",
    "length(title) = 10 AND starts_with(id, 'p') AND ends_with(id, '7')": lambda p: (
        len(p.title) == 10 and p.id.endswith("7")
    ),
    "contains(description, 'wood') AND has_image": lambda p: "wood" in p.description,
    "id NOT IN ('p1', 'p2') AND row <> 5 AND NOT new AND has_text = TRUE": lambda p: (
        p.id not in ("p1", "p2", "p5") and p.attributes.get("new") is False
    ),
    "NOT has_text OR added > 1 OR image_error IS NOT NULL": lambda p: False,
    "title = 'a \"quoted\" \\ one' OR brand >= 'O'": lambda p: p.brand is not None,
    "row = 5 OR id = 'p6'": lambda p: p.id in ("p5", "p6"),
    "price = 1e300 OR \"split\" = 'val'": lambda p: p.split == "val",
    "coalesce(price, 1000) > 20": lambda p: p.price is None or p.price > 20,
    "TRY_CAST(stock AS VARCHAR) LIKE '%5.0'": lambda p: (
        str(p.attributes.get("stock", ""))[-1:] == "5"
    ),
    "price % 2 = 0": lambda p: p.price is not None and p.price % 2 == 0,
    "id = 'p''; DROP TABLE products; --'": lambda _: False,
}


@pytest.fixture(scope="module")
def stocked(engine: Any) -> Iterator[AnyShelf]:
    with create_shelf(engine.address("stocked"), encoder="fake") as made:
        fill(made, 120)
        yield made


@pytest.mark.parametrize("expression", FILTERS)
def test_a_filter_means_the_same_everywhere(stocked: AnyShelf, expression: str) -> None:
    made, image, text = products(120)
    wanted = [i for i, p in enumerate(made) if FILTERS[expression](p)]
    if "has_image" in expression:
        wanted = [i for i in wanted if image[i].any()]
    if "has_text" in expression:
        there = text.any(axis=1)
        wanted = [i for i in wanted if there[i]] if wanted else list(np.flatnonzero(~there))
    now = stocked.snapshot()
    assert [p.product.id for p in now.select(expression)] == [made[i].id for i in wanted]
    assert now.view.count(now.filter(expression)) == len(wanted)
    pairs = np.hstack([image, text])
    found = stocked.search(pairs[20:22], 4, where=expression)
    for row, scores in zip(found.rows, similarities(pairs[20:22], pairs), strict=True):
        order = sorted(wanted, key=lambda i: -float(scores[i]))[:4]
        assert ids_of(stocked, row) == [made[i].id for i in order]


def test_a_filter_that_is_not_allowed_is_refused_everywhere(stocked: AnyShelf) -> None:
    for expression in ("1; DROP TABLE products", "pg_sleep(9) IS NULL", "colur = 'red'"):
        with pytest.raises(FilterError):
            stocked.search(np.zeros((1, 2 * DIMENSION), np.float32), 3, where=expression)


def test_facets_count_the_same_everywhere(stocked: AnyShelf) -> None:
    now = stocked.snapshot()
    found = count_facets(
        now.view, ["category", "colour"], now.filter("price < 20"),
        own={"colour": now.filter("colour = 'red'")},
    )  # fmt: skip
    cheap = [p for p in products(120)[0] if p.price is not None and p.price < 20]
    red = Counter(p.category for p in cheap if p.attributes.get("colour") == "red")
    colours = Counter(p.attributes["colour"] for p in cheap if p.attributes)
    category, colour = found.facets["category"], found.facets["colour"]
    assert dict(category.values) == {name: n for name, n in red.items() if name}
    assert (dict(colour.values), category.lacking) == (colours, red[None])
    assert found.total == red.total()


def test_pages_of_a_listing_follow_each_other(stocked: AnyShelf) -> None:
    pages = [stocked.snapshot().select("price > 5", limit=9, offset=at) for at in range(0, 100, 9)]
    listed = [p.product.id for page in pages for p in page]
    assert listed == [p.product.id for p in stocked.snapshot().select("price > 5")]


def test_vectors_come_in_blocks_with_what_training_needs(stocked: AnyShelf) -> None:
    made, image, text = products(120)
    blocks = list(stocked.iter_vectors("category IS NOT NULL", size=32))
    assert max(len(block.rows) for block in blocks) <= 32
    wanted = [i for i, p in enumerate(made) if p.category]
    assert [name for b in blocks for name in b.ids] == [made[i].id for i in wanted]
    assert [c for b in blocks for c in b.categories] == [made[i].category for i in wanted]
    assert [s for b in blocks for s in b.splits] == [made[i].split for i in wanted]
    pairs = np.concatenate([b.pairs for b in blocks])
    np.testing.assert_array_equal(pairs, np.hstack([image, text])[wanted])


def test_a_probe_is_trained_judged_and_used_as_on_a_directory(
    shelf: AnyShelf, tmp_path: Path
) -> None:
    oracle = Shelf.create(tmp_path / "oracle.shelf", encoder="fake")
    queries = np.hstack(products(6, seed=5)[1:])
    answers = []
    for each in (oracle, shelf):
        fill(each, 120)
        each.remove(["p0"])
        trained = train_shelf(each, SETTINGS)
        assert trained.version == 1
        judged = evaluate_shelf(each).metrics
        found = Predictor.for_shelf(each).predict(queries, where="price > 1")
        answers.append((trained.metrics, judged, [a.as_dict() for a in found]))
    (trained, judged, reported), (same, judged_there, reported_there) = answers
    assert same["train_loss"] == trained["train_loss"]
    assert judged_there["hybrid"]["accuracy"] == judged["hybrid"]["accuracy"]
    for mine, theirs in zip(reported, reported_there, strict=True):
        assert theirs["category"] == mine["category"]
        assert theirs["probability"] == pytest.approx(mine["probability"], abs=1e-6)
        assert [n["id"] for n in theirs["neighbours"]] == [n["id"] for n in mine["neighbours"]]
        assert theirs["receipt"]["exhaustive"] is True
    oracle.close()


def test_a_shelf_is_filled_and_the_filling_taken_back_as_on_a_directory(
    shelf: AnyShelf, tmp_path: Path
) -> None:
    found = []
    with Shelf.create(tmp_path / "oracle.shelf", encoder="fake") as oracle:
        for each in (oracle, shelf):
            _, pairs = fill(each, 120)
            bare = [Product(f"new{i}", f"n{i}") for i in range(20)]
            near = np.roll(pairs[:20], 1, axis=1)
            near[:, DIMENSION] = 0
            each.upsert(bare, *(unit_or_zero(half) for half in np.split(near, 2, axis=1)))
            train_shelf(each, SETTINGS)
            set_policy(each, 0.3, confidence=0.3)
            before = {p.product.id: p.as_dict() for p in each.snapshot().select()}
            answers = classify_stored(each, "category IS NULL")
            rows = [answer.as_dict() for answer in answers]
            report = answers.run(apply=True)
            predicted = each.snapshot().select("category_source = 'predicted'")
            assert len(predicted) == report.accepted > 0
            undo(each)
            after = {p.product.id: p.as_dict() for p in each.snapshot().select()}
            moved = {"row": 0, "added": 0}
            assert {n: p | moved for n, p in after.items()} == {
                n: p | moved for n, p in before.items()
            }
            found.append((rows, sorted(p.product.id for p in predicted)))
    (rows, filled), (same, filled_there) = found
    assert filled_there == filled
    for mine, theirs in zip(rows, same, strict=True):
        for name in ("probability", "novelty_p"):
            assert theirs.pop(name) == pytest.approx(mine.pop(name), abs=1e-4)
        assert theirs == mine


def unit_or_zero(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)


def test_a_probe_reaches_another_machine_and_tells_what_came_since(
    shelf: AnyShelf, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, pairs = fill(shelf, 80)
    train_shelf(shelf, SETTINGS)
    image, text = np.split(pairs, 2, axis=1)
    shelf.upsert([Product("new", category="Books")], image[:1], text[:1])
    shelf.upsert([made[2].replace(title="x")], image[2:3], text[2:3])
    shelf.relabel({"p1": "Books"})
    shelf.remove(["p6"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    with open_shelf(place) as there:
        found = Predictor.for_shelf(there).predict(pairs[:1])
        assert found[0].probe_version == 1
        since = probe_facts(there)["since_training"]
        names = ("added", "updated", "relabelled", "removed")
        assert [since[name] for name in names] == [1, 1, 1, 1]
        assert there.info()["products"] == 80


def test_pictures_and_texts_are_encoded_once_and_found(
    place: Any, catalogue: Path, encoder: FakeEncoder
) -> None:
    create_shelf(place, encoder="fake").close()
    with open_shelf(place, encoder=encoder) as shelf:
        report = shelf.add(catalogue)
        assert (report.inserted, report.encoded_images, report.encoded_texts) == (30, 30, 30)
        assert shelf.add(catalogue).unchanged == 30
        assert (encoder.images, encoder.texts) == (30, 30)
        assert shelf.manifest.fingerprint == encoder.fingerprint
        image = str(catalogue.parent / "p4.png")
        assert shelf.similar(image=image, text="green thing number 4", k=1).neighbours[0].id == "p4"
    with pytest.raises(EncoderMismatch, match="other"):
        open_shelf(place, encoder=FakeEncoder("other"))


def test_a_row_that_cannot_be_used_costs_only_itself_and_may_be_tried_again(
    place: Any, catalogue: Path, encoder: FakeEncoder
) -> None:
    picture = catalogue.parent / "p3.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:40])
    create_shelf(place, encoder="fake").close()
    with open_shelf(place, encoder=encoder) as shelf:
        report = shelf.add(catalogue)
        assert (report.inserted, report.image_failed) == (30, 1)
        assert sum(shelf.info()["rejects"].values()) == 1
        picture.write_bytes(whole)
        assert shelf.retry_rejects().updated == 1
        assert shelf.info()["rejects"] == {}
        assert shelf.get("p3").image_error is None


def test_only_one_writes_at_a_time_and_readers_do_not_wait(shelf: AnyShelf, place: Any) -> None:
    fill(shelf, 10)
    with shelf.writing(), open_shelf(place) as other:
        with pytest.raises(ShelfLocked):
            other.remove(["p1"])
        assert other.snapshot().count == 10
    with open_shelf(place) as other:
        assert other.remove(["p1"]) == 1
    assert shelf.snapshot().count == 9


def test_what_does_not_fit_is_refused_with_the_numbers(shelf: AnyShelf, place: Any) -> None:
    with pytest.raises(EmptyShelf):
        shelf.search(np.zeros((1, 4), np.float32), 1)
    fill(shelf, 4)
    with pytest.raises(InvalidEmbeddings):
        shelf.upsert([Product("x")], np.ones((1, 5), np.float32), None)
    with pytest.raises(InvalidEmbeddings):
        shelf.search(np.ones((1, 4), np.float32), 1)
    with pytest.raises(ShelfExists):
        create_shelf(place, encoder="fake")


def test_a_shelf_that_is_not_there_is_named(engine: Any) -> None:
    with pytest.raises(ShelfNotFound, match=r"nowhere.*kinshelf init"):
        open_shelf(engine.address("nowhere"))


def write_source(folder: Path, count: int) -> list[str]:
    """A CSV and its embeddings; the arguments of `add`."""
    made, image, text = products(count)
    rows = [
        {"id": p.id, "title": p.title, "category": p.category or "", "price": p.price or "",
         "colour": p.attributes.get("colour", ""), "split": p.split or ""}
        for p in made
    ]  # fmt: skip
    source = folder / "products.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for name, rows_of in (("image", image), ("text", text)):
        rows_of[~rows_of.any(axis=1), 0] = 1
        np.save(folder / f"{name}.npy", rows_of)
    return [str(source), "--image-embeddings", str(folder / "image.npy"),
            "--text-embeddings", str(folder / "text.npy")]  # fmt: skip


def test_the_commands_run_unchanged(place: Any, tmp_path: Path) -> None:
    def run(command: str, *arguments: str) -> list[dict[str, Any]]:
        where = ["--shelf", str(place), "--json", "--quiet"]
        done = CliRunner().invoke(main, [command, *arguments, *where], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    source = write_source(tmp_path, 60)
    run("init", "--encoder", "fake")
    assert run("add", *source, "--batch-size", "25")[0]["inserted"] == 60
    assert run("add", *source)[0]["unchanged"] == 60
    assert run("remove", "p59")[0]["removed"] == 1
    assert run("show", "p5")[0]["attributes"] == {"colour": "blue"}
    assert len(run("list", "--where", "colour = 'red' AND price < 10")) == 14
    assert run("train", "--epochs", "4")[0]["version"] == 1
    assert run("evaluate")[0]["hybrid"]["accuracy"] > 0.5
    assert len(run("similar", "--id", "p4", "-k", "3")) == 3
    reported = run("classify", "--input", *source, "--where", "price > 1")
    assert len(reported) == 60
    assert reported[0]["receipt"] == run("classify", "--input", *source)[0]["receipt"]
    assert run("info")[0]["products"] == 59
    assert [c["kind"] for c in run("history")][:3] == ["train", "remove", "add"]
    assert run("export", str(tmp_path / "all.parquet"))[0]["products"] == 59
