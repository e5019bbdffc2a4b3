"""What an add does to products on the shelf: fields that it lacks, and what people decided."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeEncoder, write_csv
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kinshelf import Shelf
from kinshelf.cluster.encode import EncodeOptions, encode_source
from kinshelf.db.product import Product, StoredProduct
from kinshelf.db.sources.columns import RowFields
from kinshelf.db.sources.prepare import TrainingSetOptions
from kinshelf.store import AddOptions
from kinshelf.store.ingest.edit import amend, read_changes
from kinshelf.store.ingest.merge import decide, merged
from kinshelf.store.operations.decisions import keep, undo_decision

FULL = {
    "id": "1", "title": "Red mug", "description": "Holds 300 ml", "category": "Mugs",
    "price": "9.99", "brand": "Acme", "split": "val", "colour": "red", "material": "clay",
}  # fmt: skip


@pytest.fixture
def shelf(tmp_path: Path, encoder: FakeEncoder) -> Any:
    with Shelf.create(tmp_path / "s.shelf", encoder="fake") as made:
        made.use_encoder(encoder)
        yield made


def feed(folder: Path, *rows: dict[str, str], name: str = "feed.csv") -> Path:
    return write_csv(folder / name, list(rows))


def test_a_column_that_the_file_lacks_leaves_its_field_alone(shelf: Any, tmp_path: Path) -> None:
    shelf.add(feed(tmp_path, FULL))
    before = shelf.get("1").product
    report = shelf.add(feed(tmp_path, {"id": "1", "title": "Red mug", "price": "8.49"}))
    assert shelf.get("1").product == before.replace(price=8.49)
    assert (report.updated, dict(report.fields)) == (1, {"price": 1})


def test_an_empty_cell_empties_its_field(shelf: Any, tmp_path: Path) -> None:
    shelf.add(feed(tmp_path, FULL))
    shelf.add(feed(tmp_path, {"id": "1", "brand": "", "colour": ""}))
    found = shelf.get("1").product
    assert (found.brand, found.attributes) == (None, {"material": "clay"})


def test_id_and_price_update_prices_and_encode_nothing(
    shelf: Any, tmp_path: Path, encoder: FakeEncoder
) -> None:
    shelf.add(feed(tmp_path, FULL, FULL | {"id": "2"}))
    pairs = shelf.snapshot().pairs([0, 1])
    rows = [{"id": "1", "price": "5"}, {"id": "9", "price": "6"}]
    report = shelf.add(feed(tmp_path, *rows))
    assert (report.updated, report.rejected, report.encoded_texts) == (1, 1, 0)
    assert "the shelf has no product of this id" in report.examples["no-content"]
    assert shelf.get("1").product.price == 5
    np.testing.assert_array_equal(shelf.snapshot().pairs([shelf.get("1").row])[0], pairs[0])
    assert shelf.add(feed(tmp_path, rows[0])).unchanged == 1
    assert shelf.add(feed(tmp_path, FULL | {"price": "5"})).unchanged == 1


def test_a_key_that_a_json_object_lacks_leaves_its_field_alone(shelf: Any, tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    rows = [FULL, {"id": "2", "title": "Blue mug"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shelf.add(path)
    changed = [{"id": "1", "brand": None}, {"id": "2", "price": 3}]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed))
    shelf.add(path)
    assert (shelf.get("1").product.brand, shelf.get("1").product.price) == (None, 9.99)
    assert (shelf.get("2").product.title, shelf.get("2").product.price) == ("Blue mug", 3)


def test_one_half_of_supplied_embeddings_leaves_the_other(tmp_path: Path) -> None:
    rows = np.eye(4, dtype=np.float32)[:2]
    for name in ("image", "text"):
        np.save(tmp_path / f"{name}.npy", rows)
    both = AddOptions(
        image_embeddings=tmp_path / "image.npy", text_embeddings=tmp_path / "text.npy"
    )
    path = feed(tmp_path, {"id": "1", "title": "a"}, {"id": "2", "title": "b"})
    with Shelf.create(tmp_path / "given.shelf") as shelf:
        shelf.add(path, both)
        np.save(tmp_path / "image.npy", rows[::-1])
        report = shelf.add(path, AddOptions(image_embeddings=tmp_path / "image.npy"))
        assert report.updated == 2
        expected = np.hstack([rows[::-1], rows])
        at = [shelf.get(name).row for name in "12"]
        np.testing.assert_array_equal(shelf.snapshot().pairs(at), expected)
        # and prices alone need neither embeddings nor an encoder
        assert shelf.add(feed(tmp_path, {"id": "1", "price": "2"})).updated == 1
        assert shelf.add(feed(tmp_path, {"id": "1", "price": "2"})).unchanged == 1


def test_a_correction_outlives_a_feed_that_says_what_it_said(shelf: Any, tmp_path: Path) -> None:
    path = feed(tmp_path, FULL)
    shelf.add(path)
    shelf.relabel({"1": "Cups"})
    report = shelf.add(path)
    assert (report.unchanged, report.decisions_kept, report.disputed) == (1, 1, 0)
    assert shelf.get("1").product.category == "Cups"
    shelf.add(feed(tmp_path, FULL | {"price": "3"}))
    found = shelf.get("1")
    assert (found.product.category, found.product.price) == ("Cups", 3)
    assert found.decided == {"category": {"source": "Mugs"}}


def test_a_feed_that_says_something_else_since_makes_the_product_disputed(
    shelf: Any, tmp_path: Path
) -> None:
    shelf.add(feed(tmp_path, FULL))
    shelf.relabel({"1": "Cups"})
    changed = feed(tmp_path, FULL | {"category": "Bowls"})
    report = shelf.add(changed)
    assert (report.updated, report.disputed) == (1, 1)
    found = shelf.get("1")
    assert found.product.category == "Cups"
    assert found.decided == {"category": {"source": "Bowls", "disputed": True}}
    assert shelf.add(changed).unchanged == 1
    # A person settles it by giving a category, be it the same.
    assert shelf.relabel({"1": "Cups"}) == 1
    assert shelf.get("1").decided == {"category": {"source": "Bowls"}}
    assert shelf.add(changed).disputed == 0
    shelf.relabel({"1": "Bowls"})
    assert shelf.get("1").decided == {}


def test_every_field_that_a_person_edits_is_kept_and_undoing_it_gives_it_back(
    shelf: Any, tmp_path: Path
) -> None:
    path = feed(tmp_path, FULL)
    shelf.add(path)
    amend(shelf, "1", {"title": "Mug, red", "brand": None, "attributes": {"colour": "crimson"}})
    edited = shelf.get("1").product
    assert shelf.add(path).unchanged == 1
    assert shelf.get("1").product == edited
    assert sorted(shelf.get("1").decided) == [
        "attributes.colour", "attributes.material", "brand", "title",
    ]  # fmt: skip
    shelf.relabel({"1": "Cups"})
    undo_decision(shelf, shelf.generation)
    assert "category" not in shelf.get("1").decided


def test_decisions_survive_compaction_a_restart_and_an_export_that_comes_back(
    shelf: Any, tmp_path: Path
) -> None:
    shelf.add(feed(tmp_path, FULL, FULL | {"id": "2"}))
    shelf.relabel({"1": "Cups"})
    shelf.compact()
    shelf.export(tmp_path / "out.csv")
    assert shelf.add(tmp_path / "out.csv").unchanged == 2
    with Shelf.open(shelf.path) as again:
        assert again.get("1").decided == {"category": {"source": "Mugs"}}
        assert again.add(feed(tmp_path, FULL, FULL | {"id": "2"})).unchanged == 2
        assert again.get("1").product.category == "Cups"


values = st.sampled_from([None, "a", "b", "c"])
fields = st.fixed_dictionaries({"category": values, "brand": values, "split": values})
row_fields = st.none() | st.sets(st.sampled_from(["category", "brand", "split"])).map(
    lambda names: RowFields(frozenset(names), frozenset())
)


@given(fields, st.lists(st.tuples(st.booleans(), fields, row_fields), max_size=8))
def test_in_any_order_of_feeds_and_people_the_last_person_is_right(
    first: dict[str, Any], steps: list[tuple[bool, dict[str, Any], RowFields | None]]
) -> None:
    old = StoredProduct(Product("p", **first), 0, True, True, None, None, "", 1)
    said, decided = dict(first), dict[str, Any]()
    for is_person, values, has in steps:
        new = Product("p", **values)
        if is_person:
            for name, value in values.items():
                if value != getattr(old.product, name) or name in decided:
                    decided[name] = value
                if value == said[name]:
                    decided.pop(name, None)
            old = StoredProduct(new, 0, True, True, None, None, "", 1, decide(old, new))
        else:
            for name in values if has is None else has.fields:
                if (
                    name not in decided
                    or values[name] != decided[name]
                    or ("disputed" in old.decided[name])
                ):
                    said[name] = values[name]
            product, kept, _ = merged(old, new, has)
            old = StoredProduct(product, 0, True, True, None, None, "", 1, kept)
        for name in values:
            expected = decided.get(name, said[name])
            assert getattr(old.product, name) == expected
        assert set(old.decided) == set(decided)


def test_preparing_adds_every_product_and_a_grown_file_moves_none(
    shelf: Any, tmp_path: Path
) -> None:
    rows = [{"id": str(i), "title": f"t{i}", "category": "ab"[i % 2] if i % 3 else ""}
            for i in range(90)]  # fmt: skip
    options = AddOptions(training=TrainingSetOptions(val_fraction=0.3))
    report = shelf.add(feed(tmp_path, *rows[:60]), options)
    assert report.inserted == 60
    assert report.training_set.uncategorised == 20
    assert report.training_set.train + report.training_set.val == 40
    first = {p.product.id: p.product.split for p in shelf.snapshot().select()}
    assert 4 < sum(split == "val" for split in first.values()) < 20
    assert shelf.add(feed(tmp_path, *rows[:60])).unchanged == 60
    shelf.add(feed(tmp_path, *rows), options)
    then = {p.product.id: p.product.split for p in shelf.snapshot().select()}
    assert len(then) == 90
    assert {name: then[name] for name in first} == first


def test_what_a_training_set_leaves_aside_is_on_the_shelf_and_does_not_train(
    shelf: Any, tmp_path: Path
) -> None:
    rows = [{"id": f"{name}{i}", "title": "t", "category": name} for name, count in
            (("big", 9), ("middle", 6), ("small", 2)) for i in range(count)]  # fmt: skip
    chosen = TrainingSetOptions(top_categories=2, max_per_class=5)
    report = shelf.add(feed(tmp_path, *rows), AddOptions(training=chosen))
    assert (report.inserted, report.training_set.classes) == (17, {"big": 5, "middle": 5})
    assert shelf.snapshot().view.count(shelf.snapshot().filter("split = 'unused'")) == 7
    assert any("does not train, not-among-the-largest: 2 rows" in line
               for line in report.training_set.lines())  # fmt: skip


def test_a_new_title_alone_keeps_the_picture_whatever_became_of_its_file(
    shelf: Any, tmp_path: Path
) -> None:
    Image.new("RGB", (80, 80), "red").save(tmp_path / "a.png")
    shelf.add(feed(tmp_path, FULL | {"image": "a.png"}))
    before = shelf.snapshot().pairs([shelf.get("1").row])[0]
    (tmp_path / "a.png").write_bytes(b"damaged")
    report = shelf.add(feed(tmp_path, {"id": "1", "title": "Blue mug"}))
    found = shelf.get("1")
    assert (report.updated, found.has_image, found.image_error) == (1, True, None)
    after = shelf.snapshot().pairs([found.row])[0]
    half = len(before) // 2
    np.testing.assert_array_equal(after[:half], before[:half])
    assert not np.array_equal(after[half:], before[half:])


def test_products_that_are_there_already_get_their_split_once(shelf: Any, tmp_path: Path) -> None:
    rows = [{"id": str(i), "title": "t", "category": "ab"[i % 2]} for i in range(40)]
    path = feed(tmp_path, *rows)
    shelf.add(path)
    for training in (TrainingSetOptions(val_fraction=0.3), TrainingSetOptions(val_fraction=0.9)):
        report = shelf.add(path, AddOptions(training=training))
        splits = [p.product.split for p in shelf.snapshot().select()]
        counted = report.training_set.train, report.training_set.val
        assert counted == (splits.count("train"), splits.count("val"))
        assert 4 < splits.count("val") < 20


def test_attributes_in_a_json_cell_leave_those_beside_them_alone(
    shelf: Any, tmp_path: Path
) -> None:
    shelf.upsert([Product("A", "a", attributes={"colour": "red", "code": "42"}),
                  Product("B", "b", attributes={"colour": "blue"})])  # fmt: skip
    shelf.export(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    part = [{"id": r["id"], "price": "2", "attributes": r["attributes"]} for r in rows]
    report = shelf.add(feed(tmp_path, *part))
    assert dict(report.fields) == {"price": 2}
    assert shelf.get("A").product.attributes == {"colour": "red", "code": "42"}


def test_what_was_rejected_is_tried_again_and_nothing_else_settles_it(
    shelf: Any, tmp_path: Path
) -> None:
    for name in ("one.png", "two.png"):
        Image.new("RGB", (80, 80), "red").save(tmp_path / name)
    whole = (tmp_path / "two.png").read_bytes()
    shelf.add(feed(tmp_path, {"id": "A", "image": "one.png"}))
    (tmp_path / "two.png").write_bytes(b"damaged")
    assert shelf.add(feed(tmp_path, {"id": "A", "image": "two.png"})).rejected == 1
    shelf.add(feed(tmp_path, {"id": "A", "price": "5"}))
    assert sum(shelf.info()["rejects"].values()) == 1
    (tmp_path / "two.png").write_bytes(whole)
    assert shelf.retry_rejects().updated == 1
    found = shelf.get("A").product
    assert (Path(found.image).name, found.price) == ("two.png", 5)
    assert shelf.info()["rejects"] == {}


def test_trying_rejects_again_settles_no_dispute(shelf: Any, tmp_path: Path) -> None:
    row = {"id": "A", "title": "source car", "image": "a.png"}
    shelf.add(feed(tmp_path, row))  # kept without its picture
    amend(shelf, "A", {"title": "person car"})
    shelf.add(feed(tmp_path, row | {"title": "source car 2"}))
    disputed = {"title": {"source": "source car 2", "disputed": True}}
    assert shelf.get("A").decided == disputed
    Image.new("RGB", (80, 80), "red").save(tmp_path / "a.png")
    assert shelf.retry_rejects().updated == 1
    assert shelf.get("A").decided == disputed


def test_a_persons_title_keeps_its_embedding_when_supplied_ones_come_again(tmp_path: Path) -> None:
    halves = np.eye(4, dtype=np.float32)[:2]
    with Shelf.create(tmp_path / "given.shelf", encoder="fake") as shelf:
        shelf.use_encoder(FakeEncoder(dimension=4))
        product = Product("A", "source title")
        shelf.upsert([product], halves[:1], halves[1:])
        amend(shelf, "A", {"title": "a person's title"})
        before = shelf.snapshot().pairs([shelf.get("A").row])
        shelf.upsert([product], halves[:1], halves[1:])
        np.testing.assert_array_equal(shelf.snapshot().pairs([shelf.get("A").row]), before)


def test_rows_of_an_audit_that_nobody_touched_decide_nothing(shelf: Any, tmp_path: Path) -> None:
    rows = [{"id": "A", "title": "a", "category": "Cars"}]
    shelf.add(feed(tmp_path, *rows))
    reviewed = feed(tmp_path, rows[0] | {"accept": "", "new_category": ""}, name="audit.csv")
    shelf.relabel({"A": "Coaches"})
    changes = read_changes(reviewed)
    assert changes.decided(shelf) == {}
    assert read_changes(feed(tmp_path, *rows)).decided(shelf) == {"A": "Cars"}


def test_another_picture_at_the_same_place_may_be_reviewed_again(
    shelf: Any, tmp_path: Path
) -> None:
    Image.new("RGB", (80, 80), "red").save(tmp_path / "a.png")
    path = feed(tmp_path, FULL | {"image": "a.png"})
    shelf.add(path)
    keep(shelf, "1")
    assert shelf.add(path).unchanged == 1
    Image.new("RGB", (80, 80), "blue").save(tmp_path / "a.png")
    shelf.add(path)
    assert shelf.get("1").decided == {}


def test_parts_of_a_source_leave_alone_what_the_source_lacks(tmp_path: Path) -> None:
    tiny = Path(__file__).resolve().parents[1] / "samples" / "tiny-clip"
    Image.new("RGB", (80, 80), "red").save(tmp_path / "a.png")
    full = FULL | {"image": "a.png"}
    with Shelf.create(tmp_path / "s.shelf", encoder=str(tiny)) as shelf:
        shelf.add(feed(tmp_path, full))
        before, pair = shelf.get("1").product, shelf.snapshot().pairs([0])[0]
        titles = feed(tmp_path, {"id": "1", "title": "Blue mug"}, name="titles.csv")
        options = EncodeOptions(encoder=str(tiny))
        encode_source(str(titles), tmp_path / "parts", options)
        report = shelf.add(tmp_path / "parts")
        assert dict(report.fields) == {"title": 1}
        assert shelf.get("1").product == before.replace(title="Blue mug")
        after = shelf.snapshot().pairs([shelf.get("1").row])[0]
        half = len(pair) // 2
        np.testing.assert_array_equal(after[:half], pair[:half])
        assert not np.array_equal(after[half:], pair[half:])


def test_a_fault_that_was_mended_in_the_file_is_no_longer_open(shelf: Any, tmp_path: Path) -> None:
    path = tmp_path / "feed.csv"
    head, good = "id,title,price\n", "b,Blue mug,3\n"
    path.write_text(f"{head}a,Red mug,abc\n{good}c,Green mug,1,2,3\n")
    shelf.add(path)
    assert reasons(shelf) == ["bad-price", "malformed-row"]
    assert shelf.add(path).unchanged == 2
    assert (reasons(shelf), shelf.generation) == (["bad-price", "malformed-row"], 1)
    path.write_text(f"{head}a,Red mug,9\n{good}c,Green mug,1,2,3\n")
    shelf.add(path)
    assert reasons(shelf) == ["malformed-row"]
    path.write_text(f"{head}a,Red mug,9\n{good}c,Green mug,1\n")
    shelf.add(path)
    assert reasons(shelf) == []


def test_a_row_that_needs_nothing_but_the_word_that_it_is_whole_is_settled(
    shelf: Any, tmp_path: Path
) -> None:
    path = tmp_path / "feed.csv"
    path.write_text("id,title,price\na,Red mug,abc\n")
    shelf.add(path)
    path.write_text("id,title,price\na,Red mug,\n")
    report = shelf.add(path)
    assert (report.unchanged, reasons(shelf)) == (1, [])


def reasons(shelf: Any) -> list[str]:
    return sorted(entry["reason"] for entry in shelf.snapshot().view.rejects())
