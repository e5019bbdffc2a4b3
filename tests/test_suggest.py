"""What to label next: uncertain and spread out, as the papers describe it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import unit
from sklearn.cluster import KMeans

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.errors import InputError
from kinshelf.db.product import Product
from kinshelf.probe.fill.suggest import DROPPED, ROUNDS, centres, choose, disagreement, margins

D = 8


def blobs(n: int, kinds: int, seed: int = 0, noise: float = 0.3) -> tuple[Any, Any]:
    """Unit rows (n * kinds, D) float32 around `kinds` directions, and which each is of."""
    middles = np.random.default_rng(5).standard_normal((kinds, D))
    codes = np.repeat(np.arange(kinds), n)
    rng = np.random.default_rng(seed)
    return unit(middles[codes] + noise * rng.standard_normal((len(codes), D))), codes


def nearest_middle(X: Any) -> Any:
    """A predictor that is sure far from the border."""
    middles = unit(np.random.default_rng(5).standard_normal((4, D)))
    scores = np.exp(8 * X @ middles.T)
    return scores / scores.sum(axis=1, keepdims=True)


def test_without_labels_the_middle_of_each_cluster_is_asked_about() -> None:
    X, codes = blobs(30, 4)
    chosen, unsure = choose(X, None, 4)
    assert sorted(codes[chosen]) == [0, 1, 2, 3]
    assert not any(unsure)
    fitted = KMeans(4, n_init=4, random_state=0).fit(X)
    oracle = fitted.transform(X).argmin(axis=0)
    assert set(chosen) == set(oracle)


def test_disagreement_is_how_often_dropping_numbers_changes_the_answer() -> None:
    X, _ = blobs(40, 4, noise=0.8)
    rng, whole, changed = np.random.default_rng(3), nearest_middle(X).argmax(axis=1), 0
    for _ in range(ROUNDS):
        kept = rng.random(X.shape, dtype=np.float32) >= DROPPED
        changed = changed + (nearest_middle(X * kept * 4).argmax(axis=1) != whole)
    np.testing.assert_allclose(disagreement(X, nearest_middle, 3), changed / ROUNDS)
    assert margins(np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])).tolist() == [
        pytest.approx(0.2), pytest.approx(0.7),
    ]  # fmt: skip


def test_the_chosen_are_uncertain_distinct_and_spread_out() -> None:
    X, _ = blobs(60, 4, noise=0.8)
    chosen, unsure = choose(X, nearest_middle, 12)
    assert len(set(chosen.tolist())) == 12
    doubt = disagreement(X, nearest_middle, 0)
    assert [bool(doubt[place] > 0.5) for place in chosen] == unsure
    assert np.mean(unsure) > np.mean(doubt > 0.5)
    pool = np.flatnonzero(doubt > 0.5)

    def covered(places: Any) -> float:
        """How near the uncertain ones have one that was chosen, on average."""
        return float((X[pool] @ X[places].T).max(axis=1).mean())

    rng = np.random.default_rng(0)
    assert covered(chosen) > max(covered(rng.permutation(pool)[:12]) for _ in range(20))


def test_copies_do_not_take_every_place() -> None:
    X = np.vstack([np.tile(blobs(1, 1)[0], (50, 1)), blobs(5, 3)[0]])
    chosen = centres(X, 6, 0)
    assert len(set(chosen.tolist())) == 6
    assert (chosen < 50).sum() <= 3


@pytest.fixture
def shelf(tmp_path: Path) -> Any:
    X, codes = blobs(20, 3)
    with Shelf.create(tmp_path / "s.shelf", encoder="fake") as made:
        made.upsert([Product(f"p{i}", f"=thing {c}") for i, c in enumerate(codes)], X, X)
        yield made


def test_labels_are_asked_for_until_none_is_missing(shelf: Any, tmp_path: Path) -> None:
    def invoke(*line: str) -> Any:
        return CliRunner().invoke(main, [*line, "--shelf", str(shelf.path)])

    first = shelf.suggest(3)
    assert {row["why"] for row in first} == {"typical"}
    assert {row["title"] for row in first} == {f"=thing {c}" for c in range(3)}
    file = tmp_path / "label.csv"
    done = invoke("suggest", "-n", "6", "-o", str(file))
    assert f"kinshelf relabel {file}" in done.stderr
    with file.open(encoding="utf-8", newline="") as source:
        rows = list(csv.DictReader(source))
    assert rows[0]["title"].startswith("'=thing")
    for row in rows:
        row["new_category"] = "kind " + row["title"][-1]
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(target, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert json.loads(invoke("relabel", str(file), "--yes", "--json").stdout)["relabelled"] == 6
    asked = [json.loads(line) for line in invoke("suggest", "--json").stdout.splitlines()]
    assert not {row["id"] for row in asked} & {row["id"] for row in rows}
    assert {row["suggested_category"] for row in asked} <= {f"kind {c}" for c in range(3)}
    shelf.relabel({row["id"]: "kind 0" for row in shelf.suggest(100)})
    assert shelf.suggest(5) == []
    assert "has a label" in invoke("suggest").stderr
    assert shelf.suggest(5, "title = 'none'") == []
    with pytest.raises(InputError, match="one product or more"):
        shelf.suggest(0)
    assert "name a .csv" in invoke("suggest", "-o", str(tmp_path / "x.txt")).stderr
