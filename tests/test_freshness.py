"""`info` tells what came after the probe was trained, how it does on that, and when to retrain."""

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
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.storage import read_probe
from kinshelf.probe.train import train_shelf
from kinshelf.store import Product
from kinshelf.store.probes import find_probe

D = 12
QUICK = ProbeSettings(epochs=6, hidden=16, batch_size=16, lr=1e-2)


def goods(
    prefix: str, n: int, kinds: str, label: str | None = None
) -> tuple[list[Product], np.ndarray, np.ndarray]:
    """n products that look like the kinds in turn, and are labelled so unless `label` is given."""
    rng = np.random.default_rng(len(prefix) + n)
    names = [kinds[i % len(kinds)] for i in range(n)]
    centres = np.array([np.random.default_rng(ord(c)).standard_normal((2, D)) for c in names])
    image, text = (unit(centres[:, h] + 0.4 * rng.standard_normal((n, D))) for h in (0, 1))
    products = [
        Product(f"{prefix}{i}", title=f"t{i}", category=label or name)
        for i, name in enumerate(names)
    ]
    return products, image, text


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf.create(tmp_path / "a.shelf")
    made.upsert(*goods("p", 60, "abc"))
    train_shelf(made, QUICK)
    return made


def info(shelf: Shelf, *options: str) -> dict[str, Any]:
    found = CliRunner().invoke(main, ["info", "--json", *options, "--shelf", str(shelf.path)])
    assert found.exit_code == 0, found.output
    return dict(json.loads(found.stdout))


def text(shelf: Shelf) -> str:
    return " ".join(CliRunner().invoke(main, ["info", "--shelf", str(shelf.path)]).stdout.split())


def test_a_shelf_without_a_probe_has_nothing_to_tell(tmp_path: Path) -> None:
    empty = Shelf.create(tmp_path / "b.shelf")
    found = info(empty)
    assert (found["since_training"], found["policy"]) == (None, None)
    assert "trained" not in text(empty)


def test_right_after_training_nothing_changed_and_nothing_is_advised(shelf: Shelf) -> None:
    since = info(shelf)["since_training"]
    assert (since["probe"], since["generation"], since["judged"]) == (1, 1, 0)
    assert [since[name] for name in ("added", "updated", "relabelled", "removed")] == [0] * 4
    assert (since["new_categories"], since["accuracy"], since["advice"]) == ({}, None, None)
    assert "nothing changed" in text(shelf)
    assert "advice" not in text(shelf)


def test_every_kind_of_change_is_counted_once(shelf: Shelf) -> None:
    shelf.upsert(*goods("q", 5, "ab"))
    shelf.remove(["p3", "p4", "q4"])
    shelf.relabel({"p0": "b", "p1": None})
    products, image, words = goods("p", 60, "abc")
    shelf.upsert([products[7].replace(title="another")], image[7:8], words[7:8])
    since = info(shelf)["since_training"]
    counted = {name: since[name] for name in ("added", "updated", "relabelled", "removed")}
    assert counted == {"added": 4, "updated": 1, "relabelled": 2, "removed": 2}
    # the four new ones, the one with another title, and the one with another category
    assert since["judged"] == 6
    as_then = info(shelf, "--at", "2")["since_training"]
    assert (as_then["added"], as_then["removed"]) == (0, 0)


def test_the_probes_accuracy_on_new_products_is_that_of_its_own_answers(shelf: Shelf) -> None:
    shelf.upsert(*goods("q", 8, "abc"))
    shelf.upsert(*goods("wrong", 4, "a", label="b"))
    now = shelf.snapshot()
    probe = read_probe(find_probe(shelf, now).path)
    new = [s for s in now.select() if s.added > 1]
    stated = [
        probe.classes[c] for c in probe.logits(now.fused([s.row for s in new])).argmax(axis=1)
    ]
    right = np.mean([s.product.category == c for s, c in zip(new, stated, strict=True)])
    since = info(shelf)["since_training"]
    assert since["judged"] == 12
    assert since["accuracy"] == pytest.approx(right)
    assert right < 0.8


def test_new_categories_are_named_and_a_reason_to_train_again(shelf: Shelf) -> None:
    shelf.upsert(*goods("q", 4, "de"))
    since = info(shelf)["since_training"]
    assert since["new_categories"] == {"d": 2, "e": 2}
    assert since["judged"] == 0
    assert since["advice"] == "train again: 2 categories are newer than the probe (d, e)"
    assert "train again" in text(shelf)
    train_shelf(shelf, QUICK)
    assert info(shelf)["since_training"]["advice"] is None


def test_falling_accuracy_is_a_reason_to_train_again(shelf: Shelf) -> None:
    shelf.upsert(*goods("wrong", 9, "a", label="c"))
    since = info(shelf)["since_training"]
    assert since["held_out_accuracy"] > 0.9
    assert since["accuracy"] < 0.3
    assert "of 9 newer products" in since["advice"]


def test_many_new_products_are_a_reason_to_train_again(shelf: Shelf) -> None:
    shelf.upsert(*goods("q", 12, "abc"))
    assert info(shelf)["since_training"]["advice"] is None
    shelf.upsert(*goods("rr", 12, "abc"))
    assert info(shelf)["since_training"]["advice"].startswith("train again: 29 % of the")


def test_a_damaged_probe_does_not_hide_the_rest(shelf: Shelf) -> None:
    (shelf.path / "probes" / "0001" / "probe.json").write_text("{}")
    found = CliRunner().invoke(main, ["info", "--json", "--shelf", str(shelf.path)])
    assert found.exit_code == 0
    assert "damaged" in found.stderr
    assert json.loads(found.stdout)["products"] == 60
    assert json.loads(found.stdout)["since_training"] is None
