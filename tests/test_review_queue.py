"""The review queue: what the audit suspects and what `classify` doubts, each with other choices."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import unit

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.probe.audit import review_queue as review
from kinshelf.probe.audit.audit import audit_shelf
from kinshelf.probe.audit.review_queue import CHOICES, KINDS, review_queue
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.pages.thumbnails import Thumbnails
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.train import train_shelf
from kinshelf.store import Product
from kinshelf.store.operations.apply import Label, apply_labels

D = 16
NAMES = ("ball", "boat", "book", "bell", "belt", "bowl")
WRONG = {"p7": "book", "p20": "ball"}
SETTINGS = ProbeSettings(epochs=20, hidden=16, lr=5e-3, refit_below=0)
RECEIPT = {"probe": 1, "probability": 0.97, "policy": 0.98, "generation": 1}
_OF_VERDICT = {"accept": "sure", "review": "unsure", "conflict": "conflict", "novel": "novel"}


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 products of six kinds, two of them labelled wrong, and twelve without a category."""
    path = tmp_path_factory.mktemp("queue") / "a.shelf"
    rng = np.random.default_rng(1)
    code = np.arange(192) % 6
    centres = rng.standard_normal((6, D)) * 2
    image, text = (unit(centres[code] + rng.standard_normal((192, D))) for _ in range(2))
    text[190] = unit(-centres[[code[190]]])[0]
    wares = [
        Product(f"p{i}", title=f"{i}",
                category=None if i >= 180 else WRONG.get(f"p{i}", NAMES[c]))
        for i, c in enumerate(code)
    ]  # fmt: skip
    with Shelf.create(path) as shelf:
        shelf.upsert(wares, image, text)
        train_shelf(shelf, SETTINGS)
    return path


def test_wrong_labels_come_with_their_true_category_first(goods: Path) -> None:
    with Shelf.open(goods) as shelf:
        queue = review_queue(shelf, audit_shelf(shelf, settings=SETTINGS))
    suspects = {item.id: item for item in queue.items if item.kind == "label"}
    assert set(WRONG) <= set(suspects)
    for product_id, wrong in WRONG.items():
        item = suspects[product_id]
        assert item.category == wrong
        assert item.choices[0].category == NAMES[int(product_id[1:]) % 6]
        assert wrong not in [choice.category for choice in item.choices]
        assert len(item.choices) == CHOICES
    assert queue.counts() == {
        kind: n for kind in KINDS if (n := sum(item.kind == kind for item in queue.items))
    }


def test_products_without_a_category_are_in_it_by_their_verdict(goods: Path) -> None:
    with Shelf.open(goods) as shelf:
        queue = review_queue(shelf, audit_shelf(shelf, settings=SETTINGS))
        now = shelf.snapshot()
        stored = now.select("category IS NULL")
        answers = Predictor.for_shelf(shelf).predict(now.pairs([s.row for s in stored]))
    wanted = {s.product.id: a for s, a in zip(stored, answers, strict=True)}
    found = {item.id: item for item in queue.items if item.category is None}
    assert set(found) == set(wanted) == {f"p{i}" for i in range(180, 192)}
    for product_id, answer in wanted.items():
        assert found[product_id].kind == _OF_VERDICT[answer.verdict]
        assert found[product_id].choices[0].category == answer.category
    surest = [item.choices[0].probability for item in queue.items if item.category is None]
    assert surest == sorted(surest, reverse=True)


def test_how_many_without_a_category_were_not_asked_about_is_reported(
    goods: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review, "UNCATEGORISED", 5)
    with Shelf.open(goods) as shelf:
        queue = review_queue(shelf, audit_shelf(shelf, settings=SETTINGS))
    newest = {item.id for item in queue.items if item.category is None}
    assert newest == {f"p{i}" for i in range(187, 192)}
    assert queue.older == 7


def test_each_item_states_what_is_the_matter_and_shows_only_what_it_names(
    goods: Path, tmp_path: Path
) -> None:
    with Shelf.open(goods) as shelf:
        queue = review_queue(shelf, audit_shelf(shelf, settings=SETTINGS))
        now = shelf.snapshot()
        for item in queue.items:
            shown = queue.values(item, now.get(item.id), Thumbnails(tmp_path))
            assert shown["lines"]
            assert shown["badges"]
            assert {n["id"] for n in shown["neighbours"]} <= set(queue.shown_ids(item))


def test_what_the_audit_counts_as_conflicts_is_what_the_queue_shows(
    goods: Path, tmp_path: Path
) -> None:
    shutil.copytree(goods, tmp_path / "a.shelf")
    with Shelf.open(tmp_path / "a.shelf") as shelf:
        apply_labels(shelf, {f"p{i}": Label(NAMES[i % 6], RECEIPT) for i in range(180, 192)})
        audit = audit_shelf(shelf, settings=SETTINGS)
        queue = review_queue(shelf, audit)
    conflicts = {row.id for row in audit.rows if row.is_conflict and not row.is_label_issue}
    assert "p190" in conflicts
    assert {item.id for item in queue.items if item.kind == "conflict"} == conflicts


def test_the_command_shows_each_kind_of_finding_and_names_the_next_step(
    goods: Path, tmp_path: Path
) -> None:
    with Shelf.open(goods) as shelf:
        audit = audit_shelf(shelf)
    line = ["audit", "--shelf", str(goods)]
    done = CliRunner().invoke(main, line)
    for name, count in audit.counts.items():
        assert f"{count} {name.replace('_', ' ')}" in done.stderr
    assert ("labels that look wrong" in done.stdout) == bool(audit.counts["label_issues"])
    assert ("pictures that do not fit" in done.stdout) == bool(audit.counts["conflicts"])
    assert "next: kinshelf audit -o audit.csv" in done.stderr
    file = tmp_path / "found.csv"
    assert f"correct that file, then kinshelf relabel {file}" in (
        CliRunner().invoke(main, [*line, "-o", str(file)]).stderr
    )
