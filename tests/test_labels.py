"""Spellings of one category are found, and merged by the audit's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.labels import label_key, spellings
from kinshelf.db.product import Product
from kinshelf.probe.audit.audit import audit_shelf
from kinshelf.probe.audit.files import write_audit
from kinshelf.probe.pages.thumbnails import Thumbnails

USUAL = "Home & Kitchen | Mugs"


@pytest.mark.parametrize(
    "other",
    [
        "Home &amp; Kitchen | Mugs", "home & kitchen | mugs", "Home  &  Kitchen|Mugs",
        "Home and Kitchen | Mugs", "Home &amp;amp; Kitchen | Mugs", "Home+Kitchen | Mugs",
        "Home & Kitchen | Mugs | ", "HOME & KITCHEN | MUGS.",
    ],
)  # fmt: skip
def test_spellings_of_one_category_are_merged_into_the_usual_one(other: str) -> None:
    assert spellings({USUAL: 9, other: 2, "Bowls": 3, None: 4}) == {other: USUAL}
    assert spellings({USUAL: 1, other: 2}) == {USUAL: other}


@pytest.mark.parametrize(
    "other", ["Home & Kitchen | Mug", "Home | Kitchen | Mugs", "Home & Kitchens | Mugs", "Mugs"]
)
def test_other_categories_stay_apart(other: str) -> None:
    assert label_key(other) != label_key(USUAL)


def test_of_equally_frequent_spellings_the_one_without_entities_is_usual() -> None:
    assert spellings({"Mugs &amp; Cups": 2, "Mugs & Cups": 2}) == {"Mugs &amp; Cups": "Mugs & Cups"}


def test_info_reports_them_and_the_audits_file_merges_them(shelf: Any, tmp_path: Path) -> None:
    odd = "Home &amp; Kitchen | Mugs"
    kinds = [*[USUAL] * 8, *[odd] * 2, *["Bowls"] * 8]
    shelf.upsert([
        Product(str(i), f"{kind.split()[-1]} thing {i}", category=kind)
        for i, kind in enumerate(kinds)
    ])  # fmt: skip
    assert shelf.info()["category_spellings"] == {odd: USUAL}
    found = audit_shelf(shelf)
    assert found.counts["category_spellings"] == 2
    write_audit(found, path := tmp_path / "audit.csv", Thumbnails(tmp_path))
    address = str(shelf.path)
    shelf.close()
    done = CliRunner().invoke(main, ["relabel", str(path), "--shelf", address])
    assert done.exit_code == 0, done.output
    with Shelf.open(address) as again:
        assert again.snapshot().view.categories() == {USUAL: 10, "Bowls": 8}
        assert again.info()["category_spellings"] == {}
