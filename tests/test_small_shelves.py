"""Small and skewed shelves: every command works, warns plainly, and never crashes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import unit, write_csv

from kinshelf.cli import main

pytestmark = pytest.mark.wide

D = 8
SHELVES = {
    "one of each of two": [1, 1],
    "one of each of five": [1] * 5,
    "two of each of two": [2, 2],
    "five of each of four": [5] * 4,
    "one to five of each": [1, 2, 3, 4, 5],
    "a class with one row": [20, 20, 1],
    "95 % in one class": [95, 3, 1, 1],
    "80 classes of two": [2] * 80,
}
WRITTEN = ("one of each of two", "a class with one row", "500 classes of two")
"""Shelves of which the report's files are written too: drawing takes its time."""

CONFIG = "epochs = 4\nhidden = 8\nbatch_size = 32\nlr = 0.01\n"


def call(shelf: Path, *arguments: object) -> Result:
    found = CliRunner().invoke(main, [*map(str, arguments), "--shelf", str(shelf)])
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert "Traceback" not in found.output
    return found


def lines(found: Result) -> list[dict[str, object]]:
    assert found.exit_code == 0, found.output
    return [json.loads(line) for line in found.stdout.splitlines()]


def filled(folder: Path, sizes: list[int], split: str | None = None) -> tuple[Path, list[object]]:
    """A shelf of `sizes[i]` products of kind i, and the options that ask about all of them."""
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(len(sizes)), sizes)
    centres = rng.standard_normal((len(sizes), D))
    rows = [
        {"id": f"p{i}", "title": f"thing {i}", "category": f"kind {c}", "split": split or ""}
        for i, c in enumerate(code)
    ]
    asked: list[object] = ["--input", write_csv(folder / "p.csv", rows)]
    for name in ("image", "text"):
        np.save(
            folder / f"{name}.npy", unit(centres[code] + 0.2 * rng.standard_normal((len(code), D)))
        )
        asked += [f"--{name}-embeddings", folder / f"{name}.npy"]
    shelf = folder / "a.shelf"
    call(shelf, "init")
    lines(call(shelf, "add", asked[1], *asked[2:], "--json"))
    return shelf, asked


@pytest.mark.slow
def test_every_command_works_on_500_classes(tmp_path: Path) -> None:
    check_every_command("500 classes of two", [2] * 500, tmp_path)


@pytest.mark.parametrize("name", SHELVES)
def test_every_command_works_on(name: str, tmp_path: Path) -> None:
    check_every_command(name, SHELVES[name], tmp_path)


def check_every_command(name: str, sizes: list[int], tmp_path: Path) -> None:
    shelf, asked = filled(tmp_path, sizes)
    (tmp_path / "c.toml").write_text(CONFIG)
    trained = call(shelf, "train", "--config", tmp_path / "c.toml", "--json")
    report = lines(trained)[0]
    assert len(report["classes"]) == len(sizes)
    singles = sum(size == 1 for size in sizes)
    if singles:
        assert f"{singles} of {len(sizes)} categories have a single product" in trained.stderr
    few = sum(1 < size < 5 for size in sizes)
    reported = f"{few} of {len(sizes)} categories have fewer than 5 products"
    assert (reported in trained.stderr) == (few > 0)
    assert ("in one category (" in trained.stderr) == (max(sizes) == 95)
    if sum(size for size in sizes if size > 1) < 20:
        assert "too few products to calibrate" in trained.stderr
    for answer in lines(call(shelf, "classify", *asked, "--json")):
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-9)
        assert answer["category"] in answer["prediction_set"]
    written = ["-o", tmp_path / "report"] if name in WRITTEN else []
    metrics = lines(call(shelf, "evaluate", "--json", *written))[0]
    assert metrics["hybrid"]["n"] == report["metrics"]["groups"] <= sum(sizes)
    assert np.isfinite(metrics["hybrid"]["nll"])
    assert call(shelf, "audit").exit_code == 0
    chosen = call(shelf, "policy", "--precision", "0.6")
    assert chosen.exit_code in (0, 3)
    assert chosen.exit_code == 0 or "train" in chosen.stderr
    assert "since_training" in lines(call(shelf, "info", "--json"))[0]


def test_without_a_probe_a_shelf_of_single_products_is_judged_by_neighbours(
    tmp_path: Path,
) -> None:
    shelf, asked = filled(tmp_path, [1, 1, 1])
    assert len(lines(call(shelf, "classify", *asked, "--json"))) == 3
    assert lines(call(shelf, "evaluate", "--json"))[0].keys() == {"knn"}
    assert call(shelf, "audit").exit_code == 0


def test_a_shelf_of_one_category_states_that_there_is_nothing_to_learn(tmp_path: Path) -> None:
    shelf, asked = filled(tmp_path, [4])
    for command in ("train", "evaluate"):
        refused = call(shelf, command)
        assert refused.exit_code == 3
        assert "at least two categories" in refused.stderr
    assert {a["category"] for a in lines(call(shelf, "classify", *asked, "--json"))} == {"kind 0"}


def test_a_split_that_holds_every_product_cannot_be_judged(tmp_path: Path) -> None:
    shelf, _ = filled(tmp_path, [4, 4], split="val")
    refused = call(shelf, "evaluate")
    assert refused.exit_code == 3
    assert "nothing to judge them by" in refused.stderr.replace("\n", " ")
