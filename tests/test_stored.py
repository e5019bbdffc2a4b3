"""Products on the shelf, classified in bulk: as if each were asked about alone."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from conftest import unit

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.errors import FilterError, InputError
from kinshelf.db.product import Product
from kinshelf.probe.calibrate.policy import set_policy
from kinshelf.probe.fill import stored, voters
from kinshelf.probe.fill.answers import classify_stored
from kinshelf.probe.fit.settings import Calibration, ProbeSettings
from kinshelf.probe.fit.storage import read_probe
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.predict.wording import reason
from kinshelf.store.ingest.edit import amend
from kinshelf.store.probes import find_probe

D = 12
KINDS = ("ball", "book", "boat")
QUICK = ProbeSettings(epochs=12, hidden=16, batch_size=16, lr=1e-2)
OPEN = "category IS NULL"


def centre(kind: str) -> Any:
    return np.random.default_rng(sum(kind.encode())).standard_normal((2, D)) * 2


def embedded(kinds: list[tuple[str, str]], seed: int) -> tuple[Any, Any]:
    """A picture of one kind and a text of another, "" for none, for each."""
    rng = np.random.default_rng(seed)
    found = np.zeros((2, len(kinds), D), dtype=np.float32)
    for i, pair in enumerate(kinds):
        for side, kind in enumerate(pair):
            if kind:
                found[side, i] = unit((centre(kind)[side] + rng.standard_normal(D))[None])[0]
    return found[0], found[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained shelf with a policy: 120 labelled products, and 30 without a category."""
    path = tmp_path_factory.mktemp("stored") / "kinds.shelf"
    with Shelf.create(path, encoder="fake") as shelf:
        known = [(kind, kind) for kind in KINDS for _ in range(40)]
        products = [Product(f"k{i}", kind, category=kind) for i, (kind, _) in enumerate(known)]
        shelf.upsert(products, *embedded(known, 1))
        asked = [(kind, kind) for kind in KINDS for _ in range(6)]
        asked += [("ball", "book")] * 4 + [("boat", "")] * 2 + [("", "book")] * 2
        asked += [("kite", "kite")] * 4
        new = [Product(f"q{i}", f"=new {i}") for i in range(len(asked))]
        shelf.upsert(new, *embedded(asked, 2))
        shelf.train(QUICK)
        set_policy(shelf, 0.8, confidence=0.5)
    return path


@pytest.fixture
def shelf(made: Path, tmp_path: Path) -> Iterator[Any]:
    shutil.copytree(made, tmp_path / "kinds.shelf")
    with Shelf.open(tmp_path / "kinds.shelf") as opened:
        yield opened


def invoke(shelf: Any, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--shelf", str(shelf.path)])


def assert_same(answers: Any, shelf: Any, predictor: Predictor) -> None:
    """The answers are those of a predictor that is asked with the same vectors."""
    now = shelf.snapshot()
    for answer in answers:
        alone = predictor.predict(now.pairs([now.get(answer.id).row]))[0]
        assert answer.suggested_category == alone.category
        assert answer.probability == pytest.approx(alone.probability, abs=1e-5)
        assert (answer.verdict, answer.prediction_set) == (alone.verdict, alone.prediction_set)
        assert answer.novelty_p == pytest.approx(alone.novelty_p, abs=1e-3)
        assert set(answer.neighbours) <= {e.neighbour.id for e in alone.neighbours}
        if reason(alone).startswith("Probe and neighbours agree"):
            assert answer.reason.split(":")[0] == reason(alone).split(":")[0]


def test_each_answer_is_that_of_the_product_asked_about_alone(shelf: Any) -> None:
    answers = list(shelf.classify_stored(OPEN))
    assert [a.id for a in answers] == [f"q{i}" for i in range(30)]
    assert_same(answers, shelf, Predictor.for_shelf(shelf))
    assert {"accept", "novel", "review"} == {a.verdict for a in answers}


def test_picture_and_text_in_conflict_are_found_where_they_may_be(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("fill.stored", "predict.verdict"):
        monkeypatch.setattr(f"kinshelf.probe.{module}.SURE", 0.6)
    monkeypatch.setattr("kinshelf.probe.predict.verdict.is_novel", lambda *_, **__: False)
    answers = list(shelf.classify_stored(OPEN))
    assert_same(answers, shelf, Predictor.for_shelf(shelf))
    apart = [a for a in answers if a.verdict == "conflict"]
    assert {f"q{i}" for i in range(18, 22)} & {a.id for a in apart}
    assert all("The picture looks like" in a.reason for a in apart)


def test_answers_do_not_depend_on_how_much_is_held_at_once(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shelf.classify_stored().to_pandas()
    monkeypatch.setattr(stored, "BLOCK", 7)
    monkeypatch.setattr("kinshelf.probe.fill.answers.BLOCK", 7)
    monkeypatch.setattr(voters, "KEPT", 0)
    monkeypatch.setattr(voters, "_CHUNK", 11)
    parts = shelf.classify_stored().to_pandas()
    np.testing.assert_allclose(parts.pop("probability"), whole.pop("probability"), atol=1e-5)
    np.testing.assert_allclose(parts.pop("novelty_p"), whole.pop("novelty_p"), atol=1e-3)
    assert parts.equals(whole)


def test_a_products_own_label_and_those_of_its_copies_do_not_vote_for_it(shelf: Any) -> None:
    ball = shelf.snapshot().pairs([shelf.get("k0").row])
    near = unit(ball[:, :D] + 0.02), unit(ball[:, D:] + 0.02)
    shelf.upsert([Product("copy", "a copy", category="book")], *near)
    shelf.relabel({"k0": "book"})
    found = {a.id: a for a in shelf.classify_stored("id = 'k0' OR id = 'copy'")}
    pairs = {name: shelf.snapshot().pairs([shelf.get(name).row]) for name in found}
    shelf.remove(["k0", "copy"])
    for name, answer in found.items():
        alone = Predictor.for_shelf(shelf).predict(pairs[name])[0]
        assert not {"k0", "copy"} & set(answer.neighbours)
        assert answer.suggested_category == alone.category == "ball"
        assert answer.probability == pytest.approx(alone.probability, abs=1e-5)


@pytest.mark.parametrize("space", ["fused", "centred", "hidden"])
def test_votes_are_weighed_in_the_space_that_the_probe_was_fitted_in(
    shelf: Any, space: str
) -> None:
    now = shelf.snapshot()
    probe = read_probe(find_probe(shelf, now).path)
    fitted = probe.replace(calibration=Calibration(k=7, tau=0.05, lam=0.6, space=space))
    answers = stored.StoredPredictor(now, fitted, 1)
    block = next(now.iter_products(OPEN))
    assert_same(answers.answers(block), shelf, Predictor(now, fitted, 1))


def test_predicted_categories_vote_only_if_asked(shelf: Any) -> None:
    shelf.classify_stored(OPEN).run(apply=True)
    own = classify_stored(shelf, "id = 'q0'")
    also = classify_stored(shelf, "id = 'q0'", include_predicted=True)
    assert all(name.startswith("k") for a in own for name in a.neighbours)
    assert len(also._predictor._rows) > len(own._predictor._rows)


# ---- what is written


def test_the_accepted_are_written_as_one_operation_that_is_taken_back(shelf: Any) -> None:
    before = {p["id"]: p for p in shelf.products()}
    report = shelf.classify_stored(OPEN).run(apply=True)
    assert report.applied.applied == report.verdicts["accept"] == report.accepted > 5
    newest = shelf.operations()[0]
    assert (newest["kind"], newest["updated"]) == ("predict", report.accepted)
    receipt = shelf.get("q0").decided["category"]["predicted"]
    assert (receipt["probe"], receipt["policy"]) == (report.probe, 0.8)
    again = shelf.classify_stored("category_source = 'predicted'").run(apply=True)
    assert (again.applied.applied, again.would_change) == (0, 0)
    shelf.undo()
    after = {p["id"]: p for p in shelf.products()}
    for name, product in before.items():
        assert {**after[name], "row": 0, "added": 0} == {**product, "row": 0, "added": 0}


def test_predicted_categories_do_not_move_the_probe(shelf: Any) -> None:
    first = read_probe(find_probe(shelf, shelf.snapshot()).path)
    assert shelf.classify_stored(OPEN).run(apply=True).applied.applied
    shelf.train(QUICK)
    second = read_probe(find_probe(shelf, shelf.snapshot()).path)
    assert first.calibration == second.calibration
    for name, weights in first.weights.items():
        np.testing.assert_array_equal(weights, second.weights[name])


def test_predicted_categories_train_only_if_asked(shelf: Any) -> None:
    filled = shelf.classify_stored(OPEN).run(apply=True).accepted
    rows = [
        json.loads(invoke(shelf, "train", "--epochs", "1", "--json", *more).stdout)["trained_rows"]
        for more in ([], ["--include-predicted"])
    ]
    assert rows[1] == rows[0] + filled
    assert invoke(shelf, "train", "--include-predicted", "--from", "x").exit_code == 2


def test_what_a_feed_or_a_person_set_stays_and_so_does_what_changed_meanwhile(shelf: Any) -> None:
    shelf.relabel({"q0": "book"})
    answers = shelf.classify_stored()

    def meanwhile(done: int, _answer: Any) -> None:
        if done == 1:
            amend(shelf, "q1", {"price": 2.0})

    report = answers.run(apply=True, each=meanwhile)
    assert report.applied.left == ["q1"]
    assert shelf.get("q0").product.category == "book"
    assert shelf.get("q1").product.category is None
    assert shelf.get("k0").origin("category") == "feed"


def test_nothing_is_written_without_a_policy(shelf: Any) -> None:
    shelf.train(QUICK)
    with pytest.raises(InputError, match="kinshelf policy"):
        shelf.classify_stored(OPEN).run(apply=True)
    with pytest.raises(FilterError):
        shelf.classify_stored("colour = 'red'")


# ---- files and the command


def test_files_hold_every_answer_and_a_spreadsheet_runs_none_of_it(
    shelf: Any, tmp_path: Path
) -> None:
    answers = list(shelf.classify_stored(OPEN))
    for suffix in ("csv", "jsonl", "parquet", "html"):
        shelf.classify_stored(OPEN).run(file=tmp_path / f"a.{suffix}")
    with (tmp_path / "a.csv").open(encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert [row["suggested_category"] for row in cells] == [a.suggested_category for a in answers]
    assert cells[3]["title"] == "'=new 3"
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [a.as_dict() for a in answers]
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["neighbours"] for row in table] == [a.neighbours for a in answers]
    page = (tmp_path / "a.html").read_text()
    assert page.count('<section class="card">') == 30
    with pytest.raises(InputError, match=r"use \.csv"):
        shelf.classify_stored(OPEN).run(file=tmp_path / "a.txt")


def test_a_reviewed_file_of_answers_is_what_relabel_takes(shelf: Any, tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    assert invoke(shelf, "classify", "--stored", "--where", OPEN, "-o", str(file)).exit_code == 0
    assert json.loads(invoke(shelf, "relabel", str(file), "--json").stdout)["relabelled"] == 0
    with file.open(encoding="utf-8", newline="") as source:
        rows = list(csv.DictReader(source))
    rows[0]["accept"], rows[1]["new_category"] = "yes", "boat"
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(target, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert json.loads(invoke(shelf, "relabel", str(file), "--json").stdout)["relabelled"] == 2
    assert shelf.get("q0").product.category == rows[0]["suggested_category"]
    assert (shelf.get("q1").product.category, shelf.get("q1").origin("category")) == (
        "boat", "person",
    )  # fmt: skip


def test_the_command_changes_nothing_unless_it_is_told_to(shelf: Any) -> None:
    generation = shelf.snapshot().generation
    done = invoke(shelf, "classify", "--stored", "--where", OPEN)
    assert done.exit_code == 0, done.output
    assert "30 products classified" in done.stderr
    assert "nothing was changed" in done.stderr
    assert f'--where "{OPEN}" --apply accept' in done.stderr
    assert shelf.snapshot().generation == generation
    lines = invoke(shelf, "classify", "--stored", "--where", OPEN, "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"q{i}" for i in range(30)]
    done = invoke(shelf, "classify", "--stored", "--where", OPEN, "--apply", "accept")
    assert "kinshelf undo" in done.stderr
    assert shelf.snapshot().generation == generation + 1
    for wrong in (["--stored", "--text", "a"], ["--text", "a", "--apply", "accept"]):
        assert invoke(shelf, "classify", *wrong).exit_code == 2
