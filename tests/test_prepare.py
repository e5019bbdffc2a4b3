"""Preparing a training set while reading."""

from __future__ import annotations

import csv
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinshelf.db.errors import EmptySource, InputError, UnknownColumn
from kinshelf.db.sources.prepare import (
    LeftOut,
    TrainingSetOptions,
    TrainingSetPlan,
    plan_source,
    plan_training_set,
    prepare,
)
from kinshelf.db.sources.readers import ReadOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kinshelf.db.product import Product

CATEGORIES = ["a"] * 5 + ["b"] * 5 + ["c"] * 3 + ["d"] + [None] * 4


def plan(categories: Sequence[str | None], **options: Any) -> TrainingSetPlan:
    return plan_training_set(categories, TrainingSetOptions(**options))


def chosen(path: Path, **options: Any) -> list[Product]:
    found = prepare(path, ReadOptions(), TrainingSetOptions(**options))
    return [product for batch in found for product in batch.products]


def catalogue(path: Path, categories: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "category", "split", "colour"])
        writer.writerows([f"p{i}", f"t{i}", c, "test", "red"] for i, c in enumerate(categories))
    return path


def test_without_options_every_categorised_row_is_chosen() -> None:
    whole = plan(CATEGORIES)
    assert whole.chosen.tolist() == list(range(14))
    assert whole.classes == {"a": 5, "b": 5, "c": 3, "d": 1}
    assert whole.uncategorised == 4
    assert whole.left_out == []
    assert whole.split(0) is None
    assert not whole.takes(14)
    assert not whole.takes(1000)


def test_the_largest_categories_stay_and_ties_go_by_name() -> None:
    for top, names in ((1, ["a"]), (2, ["a", "b"]), (3, ["a", "b", "c"]), (9, list("abcd"))):
        assert list(plan(CATEGORIES, top_categories=top).classes) == names
    assert list(plan(["z", "y", "x"], top_categories=2).classes) == ["x", "y"]


def test_what_is_left_out_is_reported_with_its_reason() -> None:
    found = plan(CATEGORIES, top_categories=3, min_per_class=4, max_per_class=2)
    assert found.classes == {"a": 2, "b": 2}
    assert found.left_out == [
        LeftOut("a", 3, "over-the-maximum"),
        LeftOut("b", 3, "over-the-maximum"),
        LeftOut("c", 3, "too-few"),
        LeftOut("d", 1, "not-among-the-largest"),
    ]


def test_the_same_seed_draws_the_same_and_another_seed_others() -> None:
    categories: list[str | None] = ["a", "b"] * 500
    first = plan(categories, max_per_class=50, val_fraction=0.2, seed=1)
    again = plan(categories, max_per_class=50, val_fraction=0.2, seed=1)
    other = plan(categories, max_per_class=50, val_fraction=0.2, seed=2)
    np.testing.assert_array_equal(first.marks, again.marks)
    assert (first.marks != other.marks).any()


def test_another_category_does_not_change_what_is_drawn_from_one() -> None:
    alone = plan(["a"] * 100, max_per_class=20, val_fraction=0.25)
    beside = plan(["a"] * 100 + ["b"] * 300, max_per_class=20, val_fraction=0.25)
    np.testing.assert_array_equal(alone.marks, beside.marks[:100])


def test_a_draw_is_not_the_beginning_of_the_file() -> None:
    drawn = plan(["a"] * 1000, max_per_class=100).chosen
    assert 400 < drawn.mean() < 600


@given(
    st.lists(st.none() | st.sampled_from("abcdef"), min_size=1, max_size=80),
    st.none() | st.integers(1, 6),
    st.none() | st.integers(1, 10),
    st.none() | st.floats(0.01, 0.99),
)
def test_a_plan_keeps_its_promises(
    categories: list[str | None], top: int | None, most: int | None, fraction: float | None
) -> None:
    counts = Counter(category for category in categories if category is not None)
    if not counts:
        with pytest.raises(InputError, match="no row has a category"):
            plan(categories)
        return
    found = plan(categories, top_categories=top, max_per_class=most, val_fraction=fraction)
    names = sorted(counts, key=lambda name: (-counts[name], name))[:top]
    assert found.classes == {name: min(counts[name], most or 10**9) for name in names}
    assert Counter(categories[i] for i in found.chosen) == Counter(found.classes)
    missing = Counter[str]()
    for left in found.left_out:
        missing[left.category] += left.rows
    assert counts == missing + Counter(found.classes)
    assert found.uncategorised == categories.count(None)
    if fraction is None:
        assert not found.train.size
        assert not found.val.size
        return
    assert sorted([*found.train, *found.val]) == found.chosen.tolist()
    for name, size in found.classes.items():
        held_out = sum(categories[i] == name for i in found.val)
        assert 1 <= held_out < size if size > 1 else held_out == 0
        assert abs(held_out - size * fraction) <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"val_fraction": 0.0},
        {"val_fraction": 1.0},
        {"val_fraction": -0.2},
        {"val_fraction": float("nan")},
        {"top_categories": 0},
        {"min_per_class": 0},
        {"max_per_class": -1},
        {"seed": -1},
    ],
)
def test_an_impossible_option_is_refused_with_its_name_and_value(options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(InputError, match=f"{name} is {value}"):
        TrainingSetOptions(**options)


def test_classes_that_are_all_too_small_are_refused_with_the_largest() -> None:
    with pytest.raises(InputError, match=r"no category has 6 rows.*'a' with 5"):
        plan(CATEGORIES, min_per_class=6)


def test_a_prepared_source_gives_the_chosen_rows_with_their_splits(tmp_path: Path) -> None:
    path = catalogue(tmp_path / "a.csv", ["a", "b", "", "a", "b", "c", "a", "b"] * 10)
    found = list(
        prepare(
            path,
            ReadOptions(batch_size=8),
            TrainingSetOptions(top_categories=2, max_per_class=20, val_fraction=0.25),
        )
    )
    products = [product for batch in found for product in batch.products]
    positions = [position for batch in found for position in batch.positions]
    assert [product.id for product in products] == [f"p{i}" for i in positions]
    assert positions == sorted(positions)
    assert Counter((product.category, product.split) for product in products) == {
        ("a", "train"): 15,
        ("a", "val"): 5,
        ("b", "train"): 15,
        ("b", "val"): 5,
    }
    assert all(product.attributes == {"colour": "red"} for product in products)


def test_without_a_val_fraction_the_sources_own_split_stays(tmp_path: Path) -> None:
    path = catalogue(tmp_path / "a.csv", ["a", "b"])
    assert {product.split for product in chosen(path)} == {"test"}


def test_rejected_rows_take_no_place_in_the_training_set(tmp_path: Path) -> None:
    lines = ["id,title,category,price"]
    lines += ["1,x,a,1", "1,y,a,1", ",z,a,1", "2,,a,1", "broken", "3,x,a,oops", "4,x,a,1"]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    options = TrainingSetOptions(max_per_class=3)
    found = plan_source(path, ReadOptions(), options)
    assert found.classes == {"a": 3}
    assert found.uncategorised == 0
    (batch,) = prepare(path, ReadOptions(), options)
    assert [product.id for product in batch.products] == ["1", "3", "4"]
    assert batch.positions == [0, 5, 6]
    assert [reject.reason for reject in batch.rejects] == [
        "duplicate-id",
        "missing-id",
        "no-content",
        "malformed-row",
        "bad-price",
    ]


def test_notes_on_rows_that_were_not_chosen_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,title,category,price\n1,x,a,oops\n2,x,b,oops\n3,x,b,1\n")
    (batch,) = prepare(path, ReadOptions(), TrainingSetOptions(top_categories=1))
    assert [(reject.position, reject.reason) for reject in batch.rejects] == [(1, "bad-price")]


def test_embeddings_follow_their_rows(tmp_path: Path) -> None:
    rows = [
        {"id": i, "category": "ab"[i % 2], "image_embedding": [i, 1.0], "title": "t"}
        for i in range(9)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (batch,) = prepare(path, ReadOptions(), TrainingSetOptions(top_categories=1))
    assert batch.image_embeddings is not None
    assert batch.image_embeddings[:, 0].tolist() == batch.positions == [0, 2, 4, 6, 8]
    assert batch.text_embeddings is None


def test_a_source_without_a_category_column_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,title\n1,a\n")
    with pytest.raises(UnknownColumn, match="--map category="):
        prepare(path, ReadOptions(), TrainingSetOptions())


def test_an_empty_source_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,title,category\n")
    with pytest.raises(EmptySource):
        prepare(path, ReadOptions(), TrainingSetOptions())


def test_the_real_catalogue_is_prepared_as_asked(amazon: Path) -> None:
    path = amazon / "embeddings" / "products.csv"
    with path.open(newline="", encoding="utf-8-sig") as file:
        category = {row["id"]: row["category"] for row in csv.DictReader(file)}
    counts = Counter(category.values()).most_common(3)
    products = chosen(path, top_categories=3, max_per_class=100, val_fraction=0.2)
    assert Counter(product.category for product in products) == {name: 100 for name, _ in counts}
    assert all(product.category == category[product.id] for product in products)
    assert Counter(product.split for product in products) == {"train": 240, "val": 60}
