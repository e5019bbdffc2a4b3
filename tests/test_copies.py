"""Copies of one product are on one side of every fold and split, and count once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from kinshelf import Shelf
from kinshelf.cluster.blocks import open_parts, spooled
from kinshelf.cluster.parts import PartCounts, part_bytes, write_once
from kinshelf.db.errors import EmptyShelf, InvalidSetting, ProbeError
from kinshelf.db.sources.parts import NAME, PartEntry, PartsManifest
from kinshelf.probe.audit.audit import audit_shelf
from kinshelf.probe.calibrate.mixture import HeldOut
from kinshelf.probe.calibrate.policy import set_policy
from kinshelf.probe.evaluate.held_out import evaluate_shelf
from kinshelf.probe.fit import copies
from kinshelf.probe.fit.copies import alike, groups_of, identical_groups
from kinshelf.probe.fit.data import ArrayData
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.split import FOLDS, cross_fit_rounds, folds, hold_out, training_set
from kinshelf.probe.fit.storage import read_probe
from kinshelf.probe.train import train_shelf
from kinshelf.store import Product
from kinshelf.store.ingest.candidate import Candidate
from kinshelf.store.probes import find_probe

pytestmark = pytest.mark.wide

D = 24
QUICK = ProbeSettings(epochs=8, hidden=32, batch_size=32, lr=1e-2)


def unit(X: np.ndarray) -> np.ndarray:
    return np.asarray(X / np.linalg.norm(X, axis=-1, keepdims=True), dtype=np.float32)


def pairs(rng: np.random.Generator, n: int) -> np.ndarray:
    """Unit embedding pairs without relation, (n, 2, D) float32."""
    return unit(rng.standard_normal((n, 2, D)))


def data_of(X: np.ndarray) -> ArrayData:
    fused = (X.reshape(len(X), -1) / np.sqrt(2)).astype(np.float32)
    return ArrayData(fused, [f"kind {i % 3}" for i in range(len(X))])


def same_groups(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one[:, None] == one, other[:, None] == other)


# ---- who is a copy of whom


@pytest.mark.parametrize("seed", range(6))
def test_groups_are_the_copies_of_copies(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_BLOCK", 37)
    monkeypatch.setattr(copies, "_GATHERED", 50)
    monkeypatch.setattr(copies, "_MANY_EDGES", 40)
    rng = np.random.default_rng(seed)
    X = pairs(rng, 60)[rng.integers(0, 60, 250)]
    X = unit(X + rng.choice([0, 0.02, 0.05, 0.08], (250, 1, 1)) * rng.standard_normal(X.shape))
    X[rng.random(250) < 0.15, 0] = 0
    X[rng.random(250) < 0.15, 1] = 0
    flat = X.reshape(250, -1).astype(np.float32)
    expected = connected_components(alike(flat, flat), directed=False)[1]
    found = groups_of(data_of(X), np.arange(250))
    assert same_groups(found, expected)
    assert 60 < len(np.unique(found)) < 250


def test_copies_are_alike_in_picture_and_text_and_lack_the_same() -> None:
    rng = np.random.default_rng(0)
    one = pairs(rng, 1)
    other_text, no_text = one.copy(), one.copy()
    other_text[:, 1], no_text[:, 1] = pairs(rng, 1)[:, 1], 0
    X = np.concatenate([one, one, other_text, no_text, no_text, np.zeros_like(one)] * 2)
    found = groups_of(data_of(X), np.arange(12))
    assert [int(np.argmax(found == g)) for g in found] == [0, 0, 2, 3, 3, 5, 0, 0, 2, 3, 3, 11]


def test_of_many_rows_exact_copies_are_found_for_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "EXACT", 100)
    rng = np.random.default_rng(1)
    source = rng.integers(0, 700, 2000)
    found = groups_of(data_of(pairs(rng, 700)[source]), np.arange(2000))
    assert same_groups(found, source)


def test_of_vectors_that_are_no_pairs_equal_ones_are_copies() -> None:
    X = np.array([[1.0, 2], [2, 4], [1, 2], [0, 0]], dtype=np.float32)
    assert same_groups(identical_groups(X), np.array([0, 1, 0, 2]))


# ---- folds and splits


@pytest.mark.parametrize("seed", range(20))
def test_no_fold_or_split_parts_a_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, groups = rng.integers(0, 4, 120), rng.integers(0, 40, 120)
    fold = folds(codes, FOLDS, seed, groups)
    held = hold_out(codes, 0.2, seed, groups)
    for group in np.unique(groups):
        assert len(np.unique(fold[groups == group])) == 1
        assert len(np.unique(held[groups == group])) == 1
    assert set(codes[~held]) == set(codes)
    assert 0 < held.sum() < 60
    judged = []
    for train, places in cross_fit_rounds(codes, seed, groups):
        assert not set(groups[train]) & set(groups[places])
        judged.extend(places.tolist())
    assert sorted(judged) == list(range(120))


def test_without_copies_nothing_changes() -> None:
    codes = np.random.default_rng(3).integers(0, 5, 200)
    alone = np.arange(200)[::-1].copy()
    assert np.array_equal(folds(codes, 5, 1, alone), folds(codes, 5, 1))
    assert np.array_equal(hold_out(codes, 0.1, 1, alone), hold_out(codes, 0.1, 1))


def test_a_class_of_nothing_but_copies_keeps_its_rows() -> None:
    codes, groups = np.repeat([0, 1], [3, 30]), np.repeat(np.arange(31), [3, *[1] * 30])
    assert not hold_out(codes, 0.5, 0, groups)[:3].any()


# ---- on a shelf


def offers(
    copies: int, splits: list[str] | None = None, noise: float = 0.01, names: int = 60
) -> tuple[list[Product], np.ndarray, np.ndarray]:
    """Products with random categories, each there several times under other ids."""
    rng = np.random.default_rng(7)
    base, kinds = pairs(rng, names), rng.integers(0, 4, names)
    at = np.repeat(np.arange(names), copies)
    X = unit(base[at] + noise * rng.standard_normal((len(at), 2, D)))
    products = [
        Product(
            f"{name}-{i}", title=f"{name} {i}", category=f"kind {kinds[name]}",
            split=splits[i % copies] if splits else None, attributes={"parent": f"p{name}"},
        )
        for i, name in enumerate(at.tolist())
    ]  # fmt: skip
    return products, X[:, 0], X[:, 1]


def filled(path: Path, *given: object, **options: object) -> Shelf:
    shelf = Shelf.create(path)
    shelf.upsert(*offers(*given, **options))  # type: ignore[arg-type]
    return shelf


@pytest.mark.parametrize("noise", [0.0, 0.01], ids=["exact", "near"])
def test_what_cannot_be_learned_is_not_promised_for_its_copies(
    tmp_path: Path, noise: float
) -> None:
    """Labels are by chance, so 25 % is right; with copies in other folds it was 100 %."""
    with filled(tmp_path / "a.shelf", 4, noise=noise) as shelf:
        trained = train_shelf(shelf, QUICK)
        assert trained.metrics["groups"] == 60
        assert any("180 of 240 products that train are copies" in line for line in trained.warnings)
        held_out = HeldOut.of(read_probe(find_probe(shelf, shelf.snapshot()).path).reference)
        assert held_out is not None
        assert len(held_out) == 60
        with pytest.raises(ProbeError, match=r"a precision of 0\.95"):
            set_policy(shelf, 0.95)
        found = evaluate_shelf(shelf)
        assert "they are 60 products, whose copies share a fold" in found.protocol
        for method in ("probe", "knn", "hybrid"):
            assert found.metrics[method]["n"] == 60
            assert found.metrics[method]["accuracy"] < 0.5
        judged = audit_shelf(shelf, settings=QUICK).judged
        assert judged is not None
        assert (judged.proba.argmax(axis=1) == judged.codes).mean() < 0.5


def test_products_of_val_with_a_copy_that_trains_do_not_count(tmp_path: Path) -> None:
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        products, image, text = offers(4, ["train", "train", "train", "val"])
        alone = [p.replace(id=f"{p.id} alone", split="val") for p in products[:10]]
        fresh = pairs(np.random.default_rng(8), 10)
        shelf.upsert(products, image, text)
        shelf.upsert(alone, fresh[:, 0], fresh[:, 1])
        train_shelf(shelf, QUICK)
        found = evaluate_shelf(shelf)
        assert found.metrics["hybrid"]["n"] == 10
        assert found.protocol == (
            "10 products of split 'val', 180 others vote; 60 more have copies among those others"
            " and do not count"
        )
        ids = shelf.snapshot().view.by_rows(found.rows)
        assert all(ids[int(row)].product.id.endswith("alone") for row in found.rows)


def test_products_of_val_with_copies_in_it_count_once(tmp_path: Path) -> None:
    """A product that is there 30 times in `val`, and known, would be most of the accuracy."""
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        products, image, text = offers(1, noise=0)
        often = [products[0].replace(id=f"copy {i}", category="kind 9") for i in range(30)]
        val = [p.replace(split="val") for p in products[:20]]
        shelf.upsert(val + products[20:], image, text)
        shelf.upsert([p.replace(split="val") for p in often], *(
            np.repeat(half[:1], 30, axis=0) for half in (image, text)))  # fmt: skip
        train_shelf(shelf, QUICK)
        found = evaluate_shelf(shelf)
        assert found.protocol == (
            "20 products of split 'val', 40 others vote; 30 more are copies of these, and copies"
            " count once"
        )
        ids = shelf.snapshot().view.by_rows(found.rows)
        judged = [ids[int(row)].product.id for row in found.rows]
        assert judged == [p.id for p in products[:20]], "the first of a group stands for it"
        assert {m["n"] for m in found.metrics.values()} == {20}


def test_a_split_of_nothing_but_copies_is_replaced_by_folds(tmp_path: Path) -> None:
    with filled(tmp_path / "a.shelf", 4, ["train", "train", "test", "val"]) as shelf:
        train_shelf(shelf, QUICK)
        found = evaluate_shelf(shelf)
        assert "each of the 60 products of split 'val' has a copy outside it" in found.protocol
        assert found.metrics["hybrid"]["n"] == 60
        assert found.metrics["hybrid"]["accuracy"] < 0.5
        with pytest.raises(EmptyShelf, match="the 60 products of split 'test' has a copy outside"):
            evaluate_shelf(shelf, split="test")


def test_a_shelf_of_copies_of_one_cannot_be_judged(tmp_path: Path) -> None:
    with filled(tmp_path / "a.shelf", 20, names=1) as shelf:
        products, image, text = offers(20, names=1)
        shelf.upsert([p.replace(id=f"x{p.id}", category="other") for p in products], image, text)
        train_shelf(shelf, QUICK)
        with pytest.raises(EmptyShelf, match="all 40 categorised products are copies of one"):
            evaluate_shelf(shelf)
        assert audit_shelf(shelf, settings=QUICK).judged is None


# ---- a column that names the group


def test_products_of_one_value_stand_together_where_a_column_is_named(tmp_path: Path) -> None:
    """Variants are too unlike to be copies, and like enough to be known by each other."""
    with filled(tmp_path / "a.shelf", 4, noise=0.1) as shelf:
        assert training_set(shelf.snapshot()).n_groups == 240
        train_shelf(shelf, QUICK)
        assert evaluate_shelf(shelf).metrics["hybrid"]["accuracy"] > 0.8
        assert evaluate_shelf(shelf, group="parent").metrics["hybrid"]["accuracy"] < 0.5
        grouped = QUICK.override(group="parent")
        assert train_shelf(shelf, grouped).metrics["groups"] == 60
        # kept with the probe
        assert evaluate_shelf(shelf).metrics["hybrid"]["accuracy"] < 0.5
        named = audit_shelf(shelf, settings=QUICK, group="parent")
        for audit, low in (
            (audit_shelf(shelf), True),
            (audit_shelf(shelf, settings=QUICK), False),
            (named, True),
        ):
            assert audit.judged is not None
            right = (audit.judged.proba.argmax(axis=1) == audit.judged.codes).mean()
            assert (right < 0.5) == low
        with pytest.raises(InvalidSetting, match=r"no column .parnt. to group by.*parent"):
            train_shelf(shelf, QUICK.override(group="parnt"))


def test_a_product_without_a_value_stands_alone(tmp_path: Path) -> None:
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        products, image, text = offers(1)
        blank = [p.replace(attributes={}, brand=None if i % 2 else "one") for i, p in
                 enumerate(products)]  # fmt: skip
        shelf.upsert(blank, image, text)
        assert training_set(shelf.snapshot(), "brand").n_groups == 31


def test_rows_of_parts_and_of_an_engine_are_grouped_by_their_columns(tmp_path: Path) -> None:
    """Such rows are read once into a scratch file, without what else the products have."""
    with filled(tmp_path / "a.shelf", 4, noise=0.1) as shelf:
        shelf.upsert([Product("none", title="no category")], np.ones((1, D)), np.ones((1, D)))
        expected = training_set(shelf.snapshot(), "parent")
        parts = tmp_path / "parts"
        written = parts_of_shelf(shelf, parts)
        with spooled(shelf) as rows, open_parts(parts, generation=1) as of_parts:
            for data in (rows, of_parts):
                found = training_set(data, "parent")
                assert same_groups(found.groups, expected.groups)
                assert found.n_groups == 60 < training_set(data).n_groups == 240
                assert training_set(data, "title").n_groups == 240
                with pytest.raises(InvalidSetting, match=r"no column .parnt. to group by.*parent"):
                    training_set(data, "parnt")
        assert written == 241


def parts_of_shelf(shelf: Shelf, folder: Path) -> int:
    """Two parts as `encode` writes them; returns how many products they have."""
    folder.mkdir()
    now = shelf.snapshot()
    stored = now.select(None)
    entries = []
    for i, part in enumerate((stored[:100], stored[100:])):
        pairs = now.pairs([each.row for each in part])
        image, text = np.split(pairs, 2, axis=1)
        encoded = [Candidate(each.product, each.row, "made", image=one, text=other)
                   for each, one, other in zip(part, image, text, strict=True)]  # fmt: skip
        counts = PartCounts(f"part-{i}.parquet", len(part), len(part), 0)
        write_once(folder / counts.name, part_bytes(encoded, counts, "made", []))
        size = (folder / counts.name).stat().st_size
        entries.append(PartEntry(counts.name, len(part), size))
    manifest = PartsManifest(
        "made", "made", None, "made", D, "float32", 200, finished=True, rows=len(stored),
        products=len(stored), parts=tuple(entries),
    )  # fmt: skip
    (folder / NAME).write_bytes(manifest.dump())
    return len(stored)


def test_rows_in_memory_have_no_columns() -> None:
    with pytest.raises(InvalidSetting, match="group 'parent'"):
        training_set(data_of(pairs(np.random.default_rng(0), 9)), "parent")
