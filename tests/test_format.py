"""A shelf of an older format opens with all that was in it; one of a newer format is refused."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from kinshelf import Shelf
from kinshelf.db.errors import UnsupportedFormat
from kinshelf.db.product import Product
from kinshelf.store.log.manifest import FORMAT, read_manifest
from kinshelf.store.maintain.verify import verify_path

OLD = Path(__file__).parent / "data" / "shelf-format-1"
"""Written by the first version: two additions, an update with a reject, a removal, a probe."""

TITLES = ["p0", "p1", "p2", "p3", "p5"]
P2 = [
    -0.3814062774181366, -0.12984350323677063, -0.5394513010978699, -0.36589232087135315,
    -0.5225723385810852, -0.06670455634593964, -0.3596241772174835, 0.07696831971406937,
    -0.19032104313373566, -0.06445730477571487, 0.2952756881713867, 0.3762458860874176,
    -0.4348256289958954, -0.26106807589530945, 0.21253062784671783, -0.654580295085907,
]  # fmt: skip


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old.shelf"))


def write_manifest(path: Path, fields: dict[str, object]) -> None:
    body = json.dumps(fields).encode()
    (path / "MANIFEST").write_bytes(body + b"\n%08x\n" % zlib.crc32(body))


def test_a_shelf_of_format_1_opens_with_all_that_it_held(old: Path) -> None:
    with Shelf.open(old) as shelf:
        now = shelf.snapshot()
        assert shelf.generation == 5
        assert sorted(s.product.id for s in now.select()) == TITLES
        assert now.get("p2").product == Product(
            "p2", "toy 2", category="Cars", price=2.25, image="https://example.com/2.jpg",
            attributes={"colour": "green"},
        )  # fmt: skip
        assert now.get("p1").product.category == "Boats"
        pairs = now.pairs([now.get("p2").row])
        assert pairs.tolist() == [np.array(P2, dtype=np.float32).tolist()]
        assert [r["id"] for r in now.view.rejects()] == ["p9"]
        assert [p["version"] for p in now.view.probes()] == [1]
        assert shelf.snapshot(at=3).get("p4").product.title == "toy 4"
    assert verify_path(old)[0] == []


def test_opening_an_older_shelf_changes_nothing_of_its_truth(old: Path) -> None:
    Shelf.open(old).close()
    for name in ("MANIFEST", "log-0.wal", "vectors-0.f32"):
        assert (old / name).read_bytes() == (OLD / name).read_bytes()


def test_an_older_shelf_can_be_changed_and_compacted(old: Path) -> None:
    with Shelf.open(old) as shelf:
        shelf.remove(["p5"])
        shelf.compact()
    assert read_manifest(old).format == FORMAT
    with Shelf.open(old) as shelf:
        assert sorted(s.product.id for s in shelf.snapshot().select()) == TITLES[:-1]
        assert [p["version"] for p in shelf.snapshot().view.probes()] == [1]


@pytest.mark.parametrize("number", [0, FORMAT + 1, 99, "2", None])
def test_a_format_that_is_not_known_is_refused_with_the_ones_that_are(
    old: Path, number: object
) -> None:
    fields = json.loads((OLD / "MANIFEST").read_bytes().splitlines()[0])
    write_manifest(old, fields | {"format": number})
    with pytest.raises(UnsupportedFormat, match=f"format {number}, this kinshelf reads 1 to"):
        Shelf.open(old)
    with pytest.raises(UnsupportedFormat):
        verify_path(old)


def test_fields_of_a_later_version_do_not_matter(old: Path) -> None:
    fields = json.loads((OLD / "MANIFEST").read_bytes().splitlines()[0])
    write_manifest(old, fields | {"colour": "red"})
    with Shelf.open(old) as shelf:
        assert shelf.snapshot().count == len(TITLES)
