"""From the command line: audit, correct the file, take it back; and the pages of other commands."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import unit, write_csv

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.train import train_shelf
from kinshelf.store import Product

D = 16
KINDS = ("ball", "boat", "book")
WRONG = {"p4": "book", "p9": "book", "p14": "ball"}


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety products, three of them in a wrong category, with a probe and a split."""
    path = tmp_path_factory.mktemp("review") / "a.shelf"
    rng = np.random.default_rng(0)
    code = np.arange(90) % 3
    centres = rng.standard_normal((3, D)) * 2
    image, text = (unit(centres[code] + rng.standard_normal((90, D))) for _ in range(2))
    wares = [
        Product(f"p{i}", title=f"thing {i}", category=WRONG.get(f"p{i}", KINDS[c]),
                split="val" if i % 5 == 1 else None)
        for i, c in enumerate(code)
    ]  # fmt: skip
    with Shelf.create(path) as shelf:
        shelf.upsert(wares, image, text)
        train_shelf(shelf, ProbeSettings(epochs=20, hidden=16, lr=5e-3, refit_below=0))
    return path


def call(shelf: Path, *arguments: object) -> Result:
    found = CliRunner().invoke(main, [*map(str, arguments), "--shelf", str(shelf)])
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def lines(found: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_a_reviewed_audit_corrects_the_shelf_and_the_next_audit_is_content(
    goods: Path, tmp_path: Path
) -> None:
    file = tmp_path / "audit.csv"
    assert call(goods, "audit", "-o", file).exit_code == 0
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    by_id = {row["id"]: row for row in rows}
    assert by_id.keys() >= WRONG.keys()
    by_id["p4"]["accept"] = "yes"
    by_id["p9"]["new_category"] = "ball"
    generation = lines(call(goods, "info", "--json"))[0]["generation"]
    done = lines(call(goods, "relabel", write_csv(tmp_path / "reviewed.csv", rows), "--json"))
    assert done == [{
        "relabelled": 2, "unchanged": len(rows) - 2, "generation": int(str(generation)) + 1,
        "columns": {"suggested_category": 1, "new_category": 1, "category": len(rows) - 2},
        "new_categories": [],
    }]  # fmt: skip
    with Shelf.open(goods) as shelf:
        found = {s.product.id: s.product.category for s in shelf.snapshot().select()}
    assert (found["p4"], found["p9"], found["p14"]) == ("boat", "ball", "ball")
    again = lines(call(goods, "audit", "--json"))
    assert not {row["id"] for row in again if row["is_label_issue"]} & {"p4", "p9"}


def test_an_unknown_id_in_the_file_ends_with_a_message_and_changes_nothing(
    goods: Path, tmp_path: Path
) -> None:
    rows = [{"id": "p0", "category": "x"}, {"id": "nobody", "category": "x"}]
    before = call(goods, "list", "--json").stdout
    file = write_csv(tmp_path / "r.csv", rows)
    asked = call(goods, "relabel", file)
    assert asked.exit_code == 3
    assert "no product has the category 'x'" in asked.stderr
    found = call(goods, "relabel", file, "--yes")
    assert found.exit_code == 3
    assert "'nobody'" in found.stderr
    assert call(goods, "list", "--json").stdout == before


def test_an_audit_file_that_cannot_be_written_is_refused_before_the_work(goods: Path) -> None:
    found = call(goods, "audit", "-o", "audit.xlsx")
    assert found.exit_code == 3
    assert "audit.xlsx" in found.stderr


def test_evaluate_writes_a_report_and_classify_a_card(goods: Path, tmp_path: Path) -> None:
    call(goods, "evaluate", "-o", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "products of split" in page
    assert "Reliability: hybrid" in page
    rng = np.random.default_rng(3)
    rows = [{"id": f"q{i}", "title": f"query <{i}>"} for i in range(3)]
    arrays = []
    for name in ("image", "text"):
        np.save(tmp_path / f"{name}.npy", unit(rng.standard_normal((3, D))))
        arrays += [f"--{name}-embeddings", tmp_path / f"{name}.npy"]
    source = write_csv(tmp_path / "q.csv", rows)
    card = tmp_path / "card.html"
    assert call(goods, "classify", "--input", source, *arrays, "--html", card).exit_code == 0
    assert "query &lt;2&gt;" in card.read_text(encoding="utf-8")
