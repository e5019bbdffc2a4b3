"""Answers as of an older generation are those that were given then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import unit

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.errors import GenerationNotFound, ProductNotFound
from kinshelf.db.product import Product

DIMENSION = 8


def put(shelf: Shelf, names: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, text = (unit(rng.standard_normal((len(names), DIMENSION))) for _ in range(2))
    shelf.upsert([Product(n, f"{n} v{seed}", category=f"c{seed}") for n in names], image, text)


@pytest.fixture
def shelf(tmp_path: Path) -> Any:
    with Shelf.create(tmp_path / "toys.shelf", encoder="fake") as made:
        yield made


def answers(shelf: Shelf, at: int | None) -> dict[str, Any]:
    """What a user can ask of a generation, row numbers left out."""
    now = shelf.snapshot(at)
    ids = [s.product.id for s in now.select()]
    neighbours = {
        name: [
            (n.id, n.title, n.category, n.similarity)
            for n in shelf.similar(id=name, k=3, at=at).neighbours
        ]
        for name in ids
    }
    info = {k: v for k, v in shelf.info(at).items() if k not in ("format", "probes", "index")}
    found = [s.product for s in now.select("category != 'c1'")]
    return {"ids": ids, "neighbours": neighbours, "info": info, "found": found}


def test_every_kept_generation_gives_the_answers_that_it_gave_then(shelf: Shelf) -> None:
    then: dict[int, dict[str, Any]] = {}
    for seed, names in enumerate((["a", "b", "c"], ["d", "b"], ["e", "f"], ["a"]), start=1):
        put(shelf, names, seed)
        then[shelf.generation] = answers(shelf, None)
    shelf.remove(["d", "e"])
    then[shelf.generation] = answers(shelf, None)
    assert {at: answers(shelf, at) for at in then} == then
    shelf.compact(keep=3)
    assert {at: answers(shelf, at) for at in (3, 4, 5)} == {at: then[at] for at in (3, 4, 5)}


def test_a_generation_that_is_not_kept_is_refused_with_the_range(shelf: Shelf) -> None:
    put(shelf, ["a"], 1)
    put(shelf, ["b"], 2)
    shelf.compact()
    for at in (1, 3):
        with pytest.raises(GenerationNotFound, match=f"generation {at} is not kept.* 2 to 2"):
            shelf.similar(id="a", at=at)
        with pytest.raises(GenerationNotFound):
            shelf.info(at)


def test_a_product_that_came_later_is_not_there_yet(shelf: Shelf) -> None:
    put(shelf, ["a"], 1)
    put(shelf, ["b"], 2)
    with pytest.raises(ProductNotFound):
        shelf.snapshot(at=1).get("b")


def test_history_lists_every_change_newest_first_and_whether_it_is_kept(shelf: Shelf) -> None:
    put(shelf, ["a", "b"], 1)
    put(shelf, ["a"], 2)
    shelf.remove(["b"])
    shelf.compact(keep=2)
    rows = [(c["generation"], c["kind"], c["inserted"], c["updated"], c["removed"], c["kept"])
            for c in shelf.history()]  # fmt: skip
    assert rows == [
        (3, "remove", 0, 0, 1, True), (2, "add", 0, 1, 0, True), (1, "add", 2, 0, 0, False),
    ]  # fmt: skip
    assert [c["generation"] for c in shelf.history(limit=1)] == [3]


def test_the_commands_answer_as_of_a_generation(shelf: Shelf) -> None:
    put(shelf, ["a", "b"], 1)
    put(shelf, ["a", "c"], 2)

    def run(*arguments: str) -> list[Any]:
        result = CliRunner().invoke(main, [*arguments, "--shelf", str(shelf.path), "--json"])
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    assert run("show", "a", "--at", "1")[0]["title"] == "a v1"
    assert [p["id"] for p in run("list", "--at", "1")] == ["a", "b"]
    assert run("info", "--at", "1")[0]["products"] == 2
    assert [n["id"] for n in run("similar", "--id", "a", "--at", "1")] == ["b"]
    assert [c["kept"] for c in run("history")] == [True, True]
    result = CliRunner().invoke(main, ["list", "--at", "9", "--shelf", str(shelf.path)])
    assert result.exit_code == 3
    assert "generations 0 to 2" in result.output
