"""Corrected categories come back as one change: all or none, and nothing is encoded again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeEncoder, unit, write_csv
from hypothesis import given
from hypothesis import strategies as st

from kinshelf import Shelf
from kinshelf.db.errors import (
    DuplicateId,
    GenerationNotFound,
    InputError,
    ProductNotFound,
    UnknownCategory,
    UnknownColumn,
)
from kinshelf.db.text import for_spreadsheet, from_spreadsheet
from kinshelf.probe.audit.audit import audit_shelf
from kinshelf.probe.audit.files import write_audit
from kinshelf.probe.pages.thumbnails import Thumbnails
from kinshelf.store import Product
from kinshelf.store.ingest.categories import check_category, new_categories
from kinshelf.store.ingest.edit import read_changes
from kinshelf.store.operations.decisions import keep, last_decision, undo_decision


def categories(shelf: Shelf, at: int | None = None) -> dict[str, str | None]:
    return {s.product.id: s.product.category for s in shelf.snapshot(at).select()}


def test_categories_change_as_one_generation_and_the_old_one_can_be_asked(
    shelf: Shelf, catalogue: Path, encoder: FakeEncoder
) -> None:
    shelf.add(catalogue)
    before, encoded = categories(shelf), (encoder.images, encoder.texts)
    generation = shelf.generation
    changes = {"p0": "Things | Blue", "p4": None, "p7": before["p7"]}
    assert shelf.relabel(changes) == 2
    assert shelf.generation == generation + 1
    assert categories(shelf) == before | {"p0": "Things | Blue", "p4": None}
    assert categories(shelf, generation) == before
    assert (encoder.images, encoder.texts) == encoded
    assert shelf.snapshot().count == 30


def test_vectors_and_everything_else_stay_as_they_were(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    old = shelf.snapshot().get("p3")
    vectors = shelf.snapshot().pairs([old.row])
    shelf.relabel({"p3": "Other"})
    new = shelf.snapshot().get("p3")
    assert (shelf.snapshot().pairs([new.row]) == vectors).all()
    assert new.product == old.product.replace(category="Other")
    assert (new.has_image, new.has_text, new.image_hash) == (
        old.has_image, old.has_text, old.image_hash,
    )  # fmt: skip
    reopened = Shelf.open(shelf.path)
    assert categories(reopened) == categories(shelf)


def test_adding_the_corrected_source_again_changes_nothing(
    shelf: Shelf, catalogue: Path, encoder: FakeEncoder
) -> None:
    shelf.add(catalogue)
    shelf.relabel({"p0": "Corrected"})
    corrected = catalogue.read_text().replace(
        "p0,red thing number 0,Things | Red", "p0,red thing number 0,Corrected"
    )
    assert "Corrected" in corrected
    catalogue.write_text(corrected)
    report = shelf.add(catalogue)
    assert (report.unchanged, report.updated) == (30, 0)


def test_so_it_is_where_embeddings_were_supplied(tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((2, 8)))
    wares = [Product("a", title="a", category="x"), Product("b", title="b", category="x")]
    with Shelf.create(tmp_path / "a.shelf") as shelf:
        shelf.upsert(wares, vectors, vectors)
        shelf.relabel({"a": "y"})
        report = shelf.upsert([wares[0].replace(category="y"), wares[1]], vectors, vectors)
    assert (report.unchanged, report.updated) == (2, 0)


def test_one_unknown_id_and_nothing_changes(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    before, generation = categories(shelf), shelf.generation
    with pytest.raises(ProductNotFound, match=r"2 of the ids .*'nobody', 'none'"):
        shelf.relabel({"p0": "x", "nobody": "x", "none": "y"})
    assert (categories(shelf), shelf.generation) == (before, generation)


def test_no_change_makes_no_generation(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    generation = shelf.generation
    assert shelf.relabel(categories(shelf)) == 0
    assert shelf.relabel({}) == 0
    assert shelf.generation == generation


def test_a_category_is_cleaned_as_when_it_is_added(shelf: Shelf, catalogue: Path) -> None:
    shelf.add(catalogue)
    shelf.relabel({"p0": " Toys|Balls ", "p1": "nan"})
    assert categories(shelf)["p0"] == "Toys | Balls"
    assert categories(shelf)["p1"] is None


ROW = {
    "id": "a", "category": "old", "accept": "", "new_category": "", "suggested_category": "hint",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"a": "old"}),
        ({"new_category": "mine"}, {"a": "mine"}),
        ({"accept": "yes"}, {"a": "hint"}),
        ({"accept": "no"}, {"a": "old"}),
        ({"accept": "Yes", "new_category": "mine"}, {"a": "mine"}),
        ({"accept": "x", "suggested_category": ""}, {"a": "old"}),
        ({"category": ""}, {}),
    ],
    ids=["as it is", "written", "accepted", "refused", "written wins", "no suggestion", "empty"],
)
def test_what_a_reviewed_row_states(
    tmp_path: Path, change: dict[str, str], expected: dict[str, str]
) -> None:
    assert read_changes(write_csv(tmp_path / "r.csv", [ROW | change])).categories == expected
    (tmp_path / "r.jsonl").write_text(json.dumps(ROW | change) + "\n")
    assert read_changes(tmp_path / "r.jsonl").categories == expected


def test_a_file_that_contradicts_itself_or_lacks_a_column_is_refused(tmp_path: Path) -> None:
    twice = [{"id": "a", "category": "x"}, {"id": "a", "category": "y"}]
    with pytest.raises(DuplicateId, match="'x' and 'y'"):
        read_changes(write_csv(tmp_path / "twice.csv", twice))
    with pytest.raises(UnknownColumn, match="new_category"):
        read_changes(write_csv(tmp_path / "other.csv", [{"id": "a", "title": "x"}]))


def test_undoing_is_a_new_generation_that_gives_back_what_was(
    shelf: Shelf, catalogue: Path, encoder: FakeEncoder
) -> None:
    shelf.add(catalogue)
    before = categories(shelf)
    shelf.relabel({"p0": "Things | Blue", "p4": None, "p8": "New"})
    changed = shelf.generation
    shelf.relabel({"p1": "Meanwhile"})
    assert undo_decision(shelf, changed) == shelf.generation == changed + 2
    assert categories(shelf) == before | {"p1": "Meanwhile"}
    assert categories(shelf, changed)["p8"] == "New"
    assert encoder.images == 30
    assert undo_decision(shelf, changed + 2) == changed + 3
    assert categories(shelf) == categories(shelf, changed) | {"p1": "Meanwhile"}


def test_what_cannot_be_undone_is_reported_and_changes_nothing(
    shelf: Shelf, catalogue: Path
) -> None:
    shelf.add(catalogue)
    added = shelf.generation
    shelf.relabel({"p0": "One", "p1": "One"})
    shelf.relabel({"p1": "Two"})
    shelf.remove(["p2"])
    newest = shelf.generation
    for generation, why in ((added, "relabelled nothing"), (newest, "relabelled nothing"),
                            (added + 1, "'p1' was changed since")):  # fmt: skip
        with pytest.raises(InputError, match=why):
            undo_decision(shelf, generation)
    for unknown in (0, newest + 1):
        with pytest.raises((InputError, GenerationNotFound)):
            undo_decision(shelf, unknown)
    shelf.compact()
    with pytest.raises(GenerationNotFound):
        undo_decision(shelf, added + 2)
    assert shelf.snapshot().get("p1").product.category == "Two"


@pytest.mark.parametrize("value", [True, 7, 1.5, {"a": 1}])
def test_a_category_that_is_no_text_is_refused_by_name(tmp_path: Path, value: object) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"id": "a", "new_category": value}) + "\n")
    with pytest.raises(InputError, match=r"'a' has .* in the column 'new_category'"):
        read_changes(path)
    with pytest.raises(InputError, match="'False'"):
        read_changes(write_csv(tmp_path / "r.csv", [{"id": "a", "new_category": "False"}]))


@given(st.text() | st.from_regex(r"[=+@'-]{1,3}\w*|0\d{1,6}|\d{10,20}", fullmatch=True))
def test_a_text_survives_a_spreadsheet(text: str) -> None:
    cell = for_spreadsheet(text)
    assert from_spreadsheet(cell) == text
    assert cell[:1] not in ("+", "-", "@", "\t", "\r")
    shown = re.fullmatch(r'="(\d+)"', cell)  # what a spreadsheet shows and saves of a formula
    assert shown[1] if shown else cell[:1] != "="


def test_an_audit_file_keeps_ids_that_a_spreadsheet_would_change(
    shelf: Shelf, tmp_path: Path
) -> None:
    names = ("007", "=1+1", "4006381333931")
    rows = [{"id": name, "title": "same", "category": "-=cups"} for name in names]
    shelf.add(write_csv(tmp_path / "a.csv", rows))
    audit = audit_shelf(shelf)
    write_audit(audit, tmp_path / "audit.csv", Thumbnails(tmp_path))
    text = (tmp_path / "audit.csv").read_text()
    assert '"=""007"""' in text and "'=1+1" in text and '"=""4006381333931"""' in text
    assert read_changes(tmp_path / "audit.csv").categories == dict.fromkeys(names, "-=cups")


def test_a_category_that_no_product_has_is_new_and_names_those_like_it(
    shelf: Shelf, catalogue: Path
) -> None:
    shelf.add(catalogue)
    shelf.relabel({"p0": "Toys & Games | Board Games"})
    asked = ["Bord Gmaes", "Toys & Games | Board Game", "Toys & Games | Board Games", "xyz", None]
    assert new_categories(shelf, asked) == {
        "Bord Gmaes": ["Toys & Games | Board Games"],
        "Toys & Games | Board Game": ["Toys & Games | Board Games"],
        "xyz": [],
    }
    with pytest.raises(UnknownCategory, match=r"did you mean 'Toys & Games . Board Games'"):
        check_category(shelf, "Bord Gmaes")


def test_keeping_a_product_is_stored_until_its_source_changes_it(
    shelf: Shelf, catalogue: Path
) -> None:
    shelf.add(catalogue)
    keep(shelf, "p0")
    assert shelf.history(1)[0]["kind"] == "keep"
    generation = shelf.generation
    assert keep(shelf, "p0") == generation
    assert shelf.add(catalogue).unchanged == 30
    assert "review" in shelf.get("p0").decided
    with Shelf.open(shelf.path) as again:
        assert "review" in again.get("p0").decided
    shelf.add(write_csv(catalogue.parent / "new.csv", [{"id": "p0", "title": "Another"}]))
    assert "review" not in shelf.get("p0").decided


def test_decisions_are_taken_back_one_by_one_after_a_restart_too(
    shelf: Shelf, catalogue: Path
) -> None:
    shelf.add(catalogue)
    before = categories(shelf)
    shelf.relabel({"p0": "One"})
    keep(shelf, "p1")
    shelf.relabel({"p0": "Two", "p2": "Two"})
    for _ in range(3):
        with Shelf.open(shelf.path) as again:
            newest = last_decision(again)
            assert newest is not None
            undo_decision(again, newest)
    with Shelf.open(shelf.path) as again:
        assert last_decision(again) is None
        assert categories(again) == before
        assert [again.get(name).decided for name in ("p0", "p1", "p2")] == [{}, {}, {}]


def test_an_answer_that_is_neither_yes_nor_no_is_refused_by_name(tmp_path: Path) -> None:
    row = {"id": "A9", "accept": "ok", "suggested_category": "Puzzles"}
    assert read_changes(write_csv(tmp_path / "a.csv", [row])).categories == {"A9": "Puzzles"}
    with pytest.raises(InputError, match="'A9' has 'maybe' in the column 'accept'"):
        read_changes(write_csv(tmp_path / "a.csv", [row | {"accept": "maybe"}]))
