"""One command is one operation; what differs between two states; taking an operation back."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import unit

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.errors import GenerationNotFound, InputError
from kinshelf.db.product import Product
from kinshelf.store.ingest.edit import amend
from kinshelf.store.operation import operation, user
from kinshelf.store.operations.apply import Label, apply_labels
from kinshelf.store.operations.decisions import keep

DIMENSION = 6
RECEIPT = {"probe": 1, "probability": 0.97, "policy": 0.98, "generation": 1}


def embedded(n: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    image, text = (unit(rng.standard_normal((n, DIMENSION))) for _ in range(2))
    return image, text


@pytest.fixture
def shelf(tmp_path: Path) -> Any:
    with Shelf.create(tmp_path / "s.shelf", encoder="fake") as made:
        yield made


def put(shelf: Any, *products: Product, seed: int = 0) -> None:
    shelf.upsert(list(products), *embedded(len(products), seed))


def state(shelf: Any, at: int | None = None) -> dict[str, dict[str, Any]]:
    """All that the shelf has of each product, vectors as bytes; but for row and generation."""
    found = {}
    for block in shelf.snapshot(at).iter_products():
        for stored, pair in zip(block.products, block.pairs, strict=True):
            image, text = np.split(pair, 2)
            product = stored.product
            found[product.id] = {
                "title": product.title, "description": product.description,
                "category": product.category, "price": product.price, "brand": product.brand,
                "image": product.image, "split": product.split,
                "attributes": dict(product.attributes), "decided": dict(stored.decided),
                "has": (stored.has_image, stored.has_text), "hash": stored.content_hash,
                "picture": (stored.image_hash, stored.image_error),
                "image_embedding": image.tobytes(), "text_embedding": text.tobytes(),
            }  # fmt: skip
    return found


# ---- operations


def test_the_batches_of_one_command_are_one_operation_with_who_and_counts(shelf: Any) -> None:
    with operation("ann@office"):
        put(shelf, Product("a"))
        put(shelf, Product("b"), Product("a", brand="x"))
    shelf.relabel({"a": "Cups"})
    newest, first = shelf.operations()
    assert (newest["kind"], newest["who"], newest["operation"]) == ("relabel", user(), 3)
    assert (first["who"], first["operation"], first["generation"]) == ("ann@office", 1, 2)
    assert (first["generations"], first["inserted"], first["updated"]) == (2, 2, 1)
    assert [c["operation"] for c in shelf.history()] == [3, 1, 1]
    shelf.compact()
    assert [(o["operation"], o["who"]) for o in shelf.operations()][-2:] == [
        (3, user()), (1, "ann@office")
    ]  # fmt: skip


# ---- diff


def test_a_diff_lists_what_came_went_and_changed_field_by_field(shelf: Any) -> None:
    put(shelf, Product("a", category="Cups", price=3.0), Product("b"), Product("c"))
    at = shelf.generation
    put(shelf, Product("d"), seed=1)
    shelf.remove(["b"])
    shelf.relabel({"a": "Mugs"})
    amend(shelf, "a", {"attributes": {"colour": "red"}})
    shelf.relabel({"c": "Jugs"})
    shelf.relabel({"c": None})  # back to what it was
    found = {change.id: change for change in shelf.diff(at)}
    assert {name: change.kind for name, change in found.items()} == {
        "a": "changed", "b": "removed", "d": "added",
    }  # fmt: skip
    assert found["a"].fields["category"] == ("Cups", "Mugs")
    assert found["a"].fields["attributes.colour"] == (None, "red")
    assert set(found["a"].fields) == {
        "category", "attributes.colour", "origin.category", "origin.attributes.colour"
    }  # fmt: skip
    assert list(shelf.diff(at, at)) == []
    with pytest.raises(InputError, match="name the older one first"):
        list(shelf.diff(shelf.generation, at))


# ---- undo


def test_an_undo_reopens_the_rejects_that_were_settled_and_takes_back_those_that_came(
    shelf: Any,
) -> None:
    def opened(at: int | None = None) -> set[str]:
        return {str(entry["id"]) for entry in shelf.snapshot(at).view.rejects()}

    image, text = embedded(3, 0)
    text[1], image[1] = np.nan, np.nan
    shelf.upsert([Product("a"), Product("b"), Product("c")], image, text)
    assert opened() == {"b"}
    put(shelf, Product("a", brand="x"), Product("b"))
    image[0], text[0] = np.nan, np.nan
    assert opened() == set()
    shelf.undo()
    assert opened() == {"b"}
    shelf.undo(shelf.operations()[0]["operation"])
    assert opened() == set()
    image, text = embedded(2, 1)
    text[:], image[:] = np.nan, np.nan
    shelf.upsert([Product("d"), Product("e")], image, text)
    assert opened() == {"d", "e"}
    shelf.undo()
    assert opened() == set()


def test_an_undo_gives_back_every_field_and_vector_and_its_own_undo_takes_it_away(
    shelf: Any,
) -> None:
    put(shelf, Product("a", "a", category="Cups", attributes={"n": 1}), Product("b"))
    before = state(shelf)
    put(shelf, Product("a", "A", price=2.0), Product("c"), seed=1)
    after = state(shelf)
    report = shelf.undo()
    assert (report.changed, report.removed, report.left) == (1, 1, {})
    assert state(shelf) == before
    undone = shelf.operations()[0]
    assert (undone["kind"], undone["command"]) == ("undo", "undo 2")
    assert shelf.operations()[1]["undone_by"] == undone["operation"]
    shelf.undo(undone["operation"])
    assert state(shelf) == after
    assert shelf.undo().operation == 2, "it stands again, so it is the newest to take back"
    assert state(shelf) == before


def test_removed_products_come_back_whole(shelf: Any) -> None:
    put(shelf, Product("a", category="Cups"), Product("b"))
    keep(shelf, "a")
    before = state(shelf)
    shelf.remove(["a"])
    assert shelf.undo().restored == 1
    assert state(shelf) == before


def test_fields_that_later_operations_changed_are_left_and_listed(shelf: Any) -> None:
    put(shelf, Product("a", category="Cups"), Product("b", category="Cups"), Product("c"))
    amend(shelf, "a", {"category": "Mugs", "brand": "Acme"})
    wrong = shelf.generation
    amend(shelf, "a", {"category": "Jugs", "price": 4.0})
    report = shelf.undo(wrong)
    assert report.left == {"a": ["category"]}
    found = shelf.get("a").product
    assert (found.category, found.brand, found.price) == ("Jugs", None, 4.0)
    assert shelf.get("a").origin("brand") is None


def test_a_product_that_was_added_and_then_changed_is_left(shelf: Any) -> None:
    put(shelf, Product("a"), Product("b"))
    shelf.relabel({"a": "Cups"})
    report = shelf.undo(1)
    assert (report.left, report.removed) == ({"a": ["product"]}, 1)
    assert list(state(shelf)) == ["a"]


def test_what_cannot_be_taken_back_is_refused_in_a_line(shelf: Any) -> None:
    with pytest.raises(InputError, match="no operation to take back"):
        shelf.undo()
    put(shelf, Product("a"))
    shelf.relabel({"a": "Cups"})
    with pytest.raises(InputError, match="no operation 9"):
        shelf.undo(9)
    shelf.compact()
    with pytest.raises(GenerationNotFound):
        shelf.undo(1)


_UNITS = (
    ("title", "description", "text_embedding"), ("image", "picture", "image_embedding"),
    ("category",), ("price",), ("brand",), ("split",), ("attributes",),
)  # fmt: skip


def _plain(product: dict[str, Any], names: tuple[str, ...]) -> list[Any]:
    return [[product[n] for n in names], [product["decided"].get(n) for n in names]]


def _expected(
    before: dict[str, Any], after: dict[str, Any], now: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """What an undo gives, worked out unit by unit."""
    found = {name: dict(product) for name, product in now.items()}
    for name in before.keys() | after.keys():
        old, new, current = before.get(name), after.get(name), now.get(name)
        if old == new:
            continue
        if current == new:
            if old is None:
                del found[name]
            else:
                found[name] = old
        elif old and new and current:
            mixed = dict(current, decided=dict(current["decided"]))
            for unit_ in (*_UNITS, ("review",)):
                if unit_ == ("review",):
                    one, two, three = (p["decided"].get("review") for p in (old, new, current))
                else:
                    one, two, three = (_plain(p, unit_) for p in (old, new, current))
                if one != two and two == three:
                    for field in unit_:
                        if field in old:
                            mixed[field] = old[field]
                        mixed["decided"].pop(field, None)
                        if field in old["decided"]:
                            mixed["decided"][field] = old["decided"][field]
            found[name] = mixed
    return found


def _without_hash(found: dict[str, Any]) -> dict[str, Any]:
    return {n: {k: v for k, v in p.items() if k != "hash"} for n, p in found.items()}


IDS = [f"p{i}" for i in range(6)]


def _change(shelf: Any, rng: random.Random, seed: int) -> None:
    """One operation of some kind, which may change nothing."""
    there = list(state(shelf))
    kind = rng.choice(["add", "relabel", "apply", "edit", "remove", "keep", "prune"])
    if kind == "add" or not there:
        names = rng.sample(IDS, rng.randint(1, 4))
        made = [
            Product(n, rng.choice(["x", "y"]), category=rng.choice([None, "A", "B"]),
                    price=rng.choice([None, 1.0, 2.0]))
            for n in names
        ]  # fmt: skip
        put(shelf, *made, seed=seed)
        return
    some = rng.sample(there, rng.randint(1, len(there)))
    if kind == "relabel":
        shelf.relabel({n: rng.choice(["A", "B", None]) for n in some})
    elif kind == "apply":
        apply_labels(shelf, {n: Label(rng.choice(["A", "B"]), RECEIPT) for n in some})
    elif kind == "edit":
        amend(shelf, some[0], {"brand": rng.choice(["u", "v"]), "price": rng.choice([1.0, 3.0])})
    elif kind == "remove":
        shelf.remove(some)
    elif kind == "prune":
        shelf.prune(some, how=rng.choice(["mark", "remove"]), limit=1)
    else:
        keep(shelf, some[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_random_operations_and_undos_equal_a_model_to_the_bit(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with Shelf.create(tmp_path / "s.shelf", encoder="fake") as shelf:
        states: list[dict[str, Any]] = [{}]
        for step in range(12):
            now, generation = states[-1], shelf.generation
            if step and rng.random() < 0.4 and generation:
                number = rng.randint(1, generation)
                expected = _expected(states[number - 1], states[number], now)
                if _without_hash(expected) == _without_hash(now):
                    with pytest.raises(InputError, match="nothing of operation"):
                        shelf.undo(number)
                    continue
                shelf.undo(number)
                made = state(shelf)
                assert _without_hash(made) == _without_hash(expected)
                if now == states[number]:
                    assert made == states[number - 1], "to the bit, hashes included"
            else:
                _change(shelf, rng, seed * 100 + step)
            if shelf.generation > generation:
                assert shelf.generation == generation + 1
                states.append(state(shelf))
        for at, expected in enumerate(states):
            assert state(shelf, at) == expected, "older generations stay as they were"


# ---- killed in the middle

_KILLED = """
import os, signal, sys
from kinshelf import Shelf
from kinshelf.store.log import disk
from kinshelf.store.operations.apply import Label, apply_labels

real, calls = disk.write_synced, 0

def dying(path, data, place):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        half = memoryview(data).cast("B")
        real(path, half[: len(half) // 2], place)
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, data, place)

disk.write_synced = dying
with Shelf.open(sys.argv[1]) as shelf:
    if sys.argv[2] == "undo":
        shelf.undo()
    elif sys.argv[2] == "prune":
        shelf.prune(["a", "b"], limit=1)
    elif sys.argv[2] == "apply":
        apply_labels(shelf, {"b": Label("Mugs", {"probe": 1}), "c": Label("Cups", {"probe": 1})})
    else:
        shelf.relabel({"a": "Jugs", "b": "Jugs"})
"""


@pytest.mark.slow
@pytest.mark.parametrize("write", [1, 2])
@pytest.mark.parametrize("what", ["undo", "apply", "relabel", "prune"])
def test_an_operation_that_is_killed_is_there_whole_or_not_at_all(
    tmp_path: Path, what: str, write: int
) -> None:
    path = tmp_path / "s.shelf"
    with Shelf.create(path, encoder="fake") as shelf:
        put(shelf, Product("a", category="Cups"), Product("b"), Product("c"))
        put(shelf, Product("a", "new"), Product("d"), seed=1)
    copy = tmp_path / "copy.shelf"
    shutil.copytree(path, copy)
    script = [sys.executable, "-c", _KILLED]
    died = subprocess.run([*script, path, what, str(write)], check=False)
    assert died.returncode == -signal.SIGKILL
    subprocess.run([*script, copy, what, "0"], check=True)
    with Shelf.open(path) as shelf, Shelf.open(copy) as done:
        before, after = state(shelf, 2), state(done)
        assert state(shelf) == before != after
        shelf.undo(2) if what == "undo" else None
        assert what != "undo" or state(shelf) == after


# ---- the command line


def run(shelf: Any, *arguments: str) -> Any:
    return CliRunner().invoke(main, [*arguments, "--shelf", str(shelf.path)])


def test_the_command_line_lists_compares_and_takes_back(shelf: Any) -> None:
    put(shelf, Product("a", category="Cups"))
    shelf.relabel({"a": "Mugs"})
    listed = [json.loads(line) for line in run(shelf, "history", "--json").stdout.splitlines()]
    assert [each["operation"] for each in listed] == [2, 1]
    found = json.loads(run(shelf, "diff", "1", "--json").stdout)
    assert found["fields"]["category"] == {"from": "Cups", "to": "Mugs"}
    done = run(shelf, "undo", "--json")
    assert json.loads(done.stdout)["changed"] == 1
    assert shelf.get("a").product.category == "Cups"
    lines = run(shelf, "history", "--generations", "--json").stdout.splitlines()
    assert [json.loads(line)["generation"] for line in lines] == [3, 2, 1]


def test_a_diff_can_be_written_to_a_file(shelf: Any, tmp_path: Path) -> None:
    put(shelf, Product("a", category="Cups"))
    shelf.relabel({"a": "Mugs"})
    path = tmp_path / "diff.csv"
    assert run(shelf, "diff", "1", "-o", str(path)).exit_code == 0
    assert path.read_text().splitlines()[:2] == ["id,change,field,from,to",
                                                 "a,changed,category,Cups,Mugs"]  # fmt: skip


def test_what_was_taken_back_is_not_taken_back_twice(shelf: Any) -> None:
    put(shelf, Product("a", "one"), Product("b", "two"))
    shelf.relabel({"a": "Mugs"})
    shelf.undo(2)
    with pytest.raises(InputError, match="operation 3 took it back"):
        shelf.undo(2)
    assert shelf.generation == 3


def test_a_shelf_is_emptied_only_by_an_undo_that_names_the_operation(shelf: Any) -> None:
    put(shelf, Product("a", "one"))
    with pytest.raises(InputError, match="`kinshelf undo 1` empties the shelf"):
        shelf.undo()
    assert shelf.undo(1).removed == 1
    assert shelf.snapshot().count == 0


def test_a_generation_within_an_operation_is_no_name_for_it(shelf: Any) -> None:
    put(shelf, Product("a", "one"))
    with operation():
        put(shelf, Product("b", "two"))
        put(shelf, Product("c", "three"))
    with pytest.raises(InputError, match="generation 3 is a part of operation 2"):
        shelf.undo(3)
    assert shelf.undo(2).removed == 2


def test_a_generation_that_never_was_is_said_not_to_be(shelf: Any) -> None:
    put(shelf, Product("a", "one"))
    for asked in ((9,), (0, 9)):
        with pytest.raises(InputError, match="no generation 9: the newest is 1"):
            list(shelf.diff(*asked))
