"""A warm start begins where the newest probe ended, and reports it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import unit

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.errors import InvalidSetting
from kinshelf.probe.fit.data import ArrayData
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.split import training_set
from kinshelf.probe.fit.training import fit_probe
from kinshelf.probe.train import train_shelf
from kinshelf.store import Product

D = 12
QUICK = ProbeSettings(epochs=8, hidden=16, batch_size=16, lr=1e-2)
STILL = dataclasses.replace(QUICK, epochs=1, lr=1e-12)


def clusters(n: int, kinds: str, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    names = [kinds[i % len(kinds)] for i in range(n)]
    pairs = [
        np.random.default_rng(ord(name)).standard_normal((2, D)) + 0.5 * rng.standard_normal((2, D))
        for name in names
    ]
    rows = np.array(pairs)
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    return (rows.reshape(n, -1) / np.sqrt(2)).astype(np.float32), names


def trained(X: np.ndarray, names: list[str], start: Probe | None = None,
            settings: ProbeSettings = QUICK) -> Probe:  # fmt: skip
    return fit_probe(training_set(ArrayData(X, names)), settings, start=start).probe


def test_with_hardly_any_step_the_answers_are_those_of_the_earlier_probe() -> None:
    X, names = clusters(90, "abc")
    first = trained(X, names)
    again = trained(X, names, first, STILL)
    new, _ = clusters(30, "abc", seed=1)
    np.testing.assert_allclose(again.logits(new), first.logits(new), atol=1e-3)
    cold = trained(X, names, None, STILL)
    assert np.abs(cold.logits(new) - first.logits(new)).max() > 0.5


def test_outputs_of_shared_categories_are_kept_and_those_of_new_ones_are_fresh() -> None:
    first = trained(*clusters(90, "ace"))
    wider = trained(*clusters(120, "abcd"), first, STILL)
    assert wider.classes == ("a", "b", "c", "d")
    new, _ = clusters(30, "ac", seed=1)
    kept, before = wider.logits(new)[:, [0, 2]], first.logits(new)[:, [0, 1]]
    np.testing.assert_allclose(kept, before, atol=1e-3)
    old = [first.weights["net.3.weight"][code] for code in range(3)]
    for code in (1, 3):
        assert all(np.abs(wider.weights["net.3.weight"][code] - row).max() > 1e-3 for row in old)


def test_a_start_that_shares_no_category_still_brings_its_hidden_layer() -> None:
    first = trained(*clusters(60, "xy"))
    other = trained(*clusters(60, "ab"), first, STILL)
    np.testing.assert_allclose(
        other.weights["net.0.weight"], first.weights["net.0.weight"], atol=1e-4
    )


def test_the_same_start_gives_the_same_probe_and_is_not_the_cold_one() -> None:
    X, names = clusters(90, "abc")
    first = trained(*clusters(60, "ab"))
    one, other, cold = trained(X, names, first), trained(X, names, first), trained(X, names)
    for name, weights in one.weights.items():
        assert np.array_equal(weights, other.weights[name])
        assert not np.array_equal(weights, cold.weights[name])


def test_a_start_of_other_widths_is_refused_with_both_and_the_remedy() -> None:
    X, names = clusters(60, "ab")
    first = trained(X, names)
    wide = dataclasses.replace(QUICK, hidden=32)
    with pytest.raises(InvalidSetting, match=r"hidden 16, asked is 32; give --hidden 16"):
        trained(X, names, first, wide)
    with pytest.raises(InvalidSetting, match=r"reads 24 values, the shelf's have 22"):
        trained(X[:, :22], names, first)


# ---- from the command line


def call(path: Path, *arguments: object) -> Result:
    found = CliRunner().invoke(main, [*map(str, arguments), "--shelf", str(path)])
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def test_train_states_which_probe_it_started_from(tmp_path: Path) -> None:
    path = tmp_path / "a.shelf"
    rng = np.random.default_rng(0)
    with Shelf.create(path) as shelf:
        code = np.arange(16) % 2
        image, text = (unit(3 * np.eye(2, D)[code] + rng.standard_normal((16, D))) for _ in "it")
        shelf.upsert(
            [Product(f"p{i}", title="t", category=f"kind {c}") for i, c in enumerate(code)],
            image, text,
        )  # fmt: skip
        refused = call(path, "train", "--warm-start")
        assert refused.exit_code == 3
        assert "has no probe" in refused.stderr
        assert train_shelf(shelf, QUICK).warm_start is None
    done = call(path, "train", "--warm-start", "--hidden", 16, "--epochs", 1, "--json")
    assert json.loads(done.stdout)["warm_start"] == 1
    assert "starting from probe 1" in done.stderr
    probes = json.loads(call(path, "info", "--json").stdout)["probes"]
    assert [p["metrics"].get("warm_start") for p in probes] == [None, 1]
    refused = call(path, "train", "--warm-start")
    assert refused.exit_code == 3
    assert "give --hidden 16" in refused.stderr
