"""Which rows train, which decide when to stop, and how they are gathered."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kinshelf.db.errors import InvalidEmbeddings, TooFewClasses
from kinshelf.probe.fit.batches import BLOCK_ROWS, Batches, hide_modality
from kinshelf.probe.fit.data import ArrayData
from kinshelf.probe.fit.split import encode, folds, hold_out, training_set

codes_strategy = st.lists(st.integers(0, 6), min_size=1, max_size=120)


def dense(codes: list[int]) -> np.ndarray:
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def rows_of(categories, splits=None):
    X = np.eye(len(categories), 4, dtype=np.float32)
    return ArrayData(X, categories, splits)


def test_rows_without_category_and_rows_of_val_and_test_do_not_train():
    data = rows_of(
        ["a", None, "b", "a", "b", "a"], ["train", "train", None, "val", "test", "elsewhere"]
    )
    chosen = training_set(data)
    assert chosen.rows.tolist() == [0, 2, 5]
    assert [chosen.classes[code] for code in chosen.codes] == ["a", "b", "a"]
    assert chosen.counts == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("categories", "reported"),
    [([], "none"), ([None, None], "none"), (["x", "x", None], r"'x' \(2\)")],
    ids=["no rows", "no categories", "one category"],
)
def test_fewer_than_two_categories_are_refused_with_their_counts(categories, reported):
    with pytest.raises(TooFewClasses, match=reported):
        training_set(ArrayData(np.zeros((len(categories), 4)), categories))


def test_if_only_reserved_rows_have_categories_the_message_reports_it():
    with pytest.raises(TooFewClasses, match="2 rows of the splits val, test and unused"):
        training_set(rows_of(["a", "b"], ["val", "test"]))


def test_classes_are_sorted_and_any_unicode_is_a_name():
    classes, codes = encode(np.array(["ß", "a", "💡", "a"], dtype=object))
    assert classes == ("a", "ß", "💡")
    assert codes.tolist() == [1, 0, 2, 0]


@given(codes_strategy, st.floats(0, 0.5), st.integers(0, 5))
def test_every_class_keeps_a_row_and_the_held_out_share_is_right(raw, fraction, seed):
    codes = dense(raw)
    held = hold_out(codes, fraction, seed)
    sizes, kept = Counter(codes.tolist()), Counter(codes[~held].tolist())
    several = {c: n for c, n in sizes.items() if n > 1}
    assert set(kept) == set(sizes)
    for c, n in sizes.items():
        assert n - kept[c] <= np.ceil(n * fraction) + (fraction > 0)
    wanted = sum(several.values()) * fraction
    if fraction > 0 and several:
        assert held.sum() >= 1
        assert held.sum() <= max(wanted + 0.5, 1)
    else:
        assert not held.any()


def test_the_held_out_share_is_stratified():
    codes = np.repeat(np.arange(4), [400, 100, 40, 10])
    held = hold_out(codes, 0.1, seed=3)
    assert np.bincount(codes[held]).tolist() == [40, 10, 4, 1]


def test_the_seed_decides_who_is_held_out():
    codes = np.repeat(np.arange(4), 50)
    first, again, other = (hold_out(codes, 0.2, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@given(codes_strategy, st.integers(2, 7), st.integers(0, 5))
def test_folds_are_equal_in_size_and_in_classes(raw, n_folds, seed):
    codes = dense(raw)
    fold = folds(codes, n_folds, seed)
    assert np.ptp(np.bincount(fold, minlength=n_folds)) <= 1
    for c in np.unique(codes):
        assert np.ptp(np.bincount(fold[codes == c], minlength=n_folds)) <= 1


class Counting(ArrayData):
    """Remembers which rows were asked for, block by block."""

    def fused(self, rows):
        self.asked = [*getattr(self, "asked", []), rows.copy()]
        return super().fused(rows)


def batches_of(n: int, size: int) -> tuple[Batches, Counting]:
    X = np.arange(n, dtype=np.float32)[:, None] * np.ones((1, 4), dtype=np.float32)
    data = Counting(X, [f"class {i % 3}" for i in range(n)])
    return Batches(training_set(data), size, torch.device("cpu")), data


@pytest.mark.parametrize("n", [3, 64, 65, BLOCK_ROWS + 7])
def test_an_epoch_gives_every_row_once_with_its_own_class(n):
    batches, _ = batches_of(n, 64)
    seen = []
    for inputs, targets in batches.shuffled(np.random.default_rng(0), 0.0):
        assert len(inputs) == len(targets) <= 64
        rows = np.rint(inputs[:, 0].numpy() / np.sqrt(2)).astype(int)
        assert (targets.numpy() == rows % 3).all()
        seen.extend(rows.tolist())
    assert sorted(seen) == list(range(n))
    assert seen != sorted(seen) or n == 3


def test_no_more_than_a_block_is_gathered_and_in_ascending_order():
    batches, data = batches_of(2 * BLOCK_ROWS + 5, 64)
    data.asked.clear()
    for _ in batches.shuffled(np.random.default_rng(0), 0.0):
        pass
    assert [len(rows) for rows in data.asked] == [BLOCK_ROWS, BLOCK_ROWS, 5]
    assert all((np.diff(rows) > 0).all() for rows in data.asked)


def test_batches_in_order_keep_the_order():
    batches, _ = batches_of(130, 64)
    rows = torch.cat([inputs[:, 0] for inputs, _ in batches.in_order()]) / np.sqrt(2)
    assert np.allclose(rows.numpy(), np.arange(130))


def test_a_share_of_pictures_and_texts_is_hidden_but_never_both():
    X = np.ones((20_000, 8), dtype=np.float32)
    X[:100, :4] = 0
    X[100:200, 4:] = 0
    before = X.copy()
    hide_modality(X, 0.2, np.random.default_rng(0))
    assert X.any(axis=1).all()
    assert np.array_equal(X[:200], before[:200])
    no_image, no_text = ((~half[200:].any(axis=1)).mean() for half in (X[:, :4], X[:, 4:]))
    assert no_image == pytest.approx(0.1, abs=0.01)
    assert no_text == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("embeddings", "reported"),
    [
        (np.zeros(4), r"\(4,\)"),
        (np.zeros((2, 0)), r"\(2, 0\)"),
        (np.array([[0, 1], [np.nan, 0]]), "row 1"),
        (np.array([[np.inf, 1], [0, 0]]), "row 0"),
    ],
    ids=["rank", "no columns", "NaN", "infinity"],
)
def test_embeddings_that_cannot_train_are_refused(embeddings, reported):
    with pytest.raises(InvalidEmbeddings, match=reported):
        ArrayData(embeddings, ["a"] * len(embeddings))


def test_embeddings_and_categories_must_be_as_many():
    with pytest.raises(InvalidEmbeddings, match="3 embeddings but 2 categories"):
        ArrayData(np.zeros((3, 2)), ["a", "b"])
