"""Pictures that stand in a source as bytes, in whatever a column may hold them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import FakeEncoder
from PIL import Image

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.cluster.encode import EncodeOptions, encode_source
from kinshelf.cluster.part import EncoderSpec
from kinshelf.db.errors import InputError
from kinshelf.db.images.decode import content_hash, limits, limits_now
from kinshelf.samples import tiny_clip_dir


def jpeg(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, "JPEG")
    return file.getvalue()


A, B = jpeg("red"), jpeg("blue")
KINDS: dict[str, pa.Array] = {
    "binary": pa.array([A, B]),
    "large binary": pa.array([A, B], pa.large_binary()),
    "binary view": pa.array([A, B], pa.binary_view()),
    "fixed size": pa.array([A[:300], B[:300]], pa.binary(300)),
    "dictionary": pa.array([A, B]).dictionary_encode(),
    "list": pa.array([[A], [B]]),
    "large list": pa.array([[A], [B]], pa.large_list(pa.binary())),
    "list of fixed size": pa.array([[A], [B]], pa.list_(pa.binary(), 1)),
    "list of numbers": pa.array([list(A), list(B)], pa.list_(pa.uint8())),
    "Hugging Face": pa.array([{"bytes": A, "path": "a.jpg"}, {"bytes": B, "path": None}]),
    "list of structures": pa.array([[{"bytes": A, "path": "a"}], [{"bytes": B, "path": "b"}]]),
    "structure of other names": pa.array([{"data": A, "width": 3}, {"data": B, "width": 4}]),
    "map": pa.array([[("image", A)], [("image", B)]], pa.map_(pa.string(), pa.binary())),
}


def images_of(shelf: Shelf) -> dict[str, Any]:
    return {p.product.id: p.product.image for p in shelf.snapshot().select(None)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_bytes_are_taken_as_pictures(
    kind: str, suffix: str, shelf: Shelf, encoder: FakeEncoder, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    table = pa.table({"id": ["1", "2"], "title": ["Red mug", "Blue box"], "image": KINDS[kind]})
    if suffix == "parquet":
        pq.write_table(table, path)
    elif kind in {"binary view"}:
        pytest.skip("the writer of Feather does not know it")
    else:
        pyarrow.feather.write_feather(table, path)
    report = shelf.add(path)
    cut = slice(300) if kind == "fixed size" else slice(None)
    assert images_of(shelf) == {
        name: f"upload://{content_hash(data[cut])}" for name, data in (("1", A), ("2", B))
    }
    assert (report.inserted, encoder.images) == (2, 0 if kind == "fixed size" else 2)


def test_of_several_pictures_as_bytes_all_are_named(shelf: Shelf, tmp_path: Path) -> None:
    table = pa.table({"id": ["1"], "image": pa.array([[A, B]])})
    pq.write_table(table, tmp_path / "a.parquet")
    shelf.add(tmp_path / "a.parquet")
    product = shelf.get("1").product
    names = [f"upload://{content_hash(data)}" for data in (A, B)]
    assert (product.image, json.loads(str(product.attributes["images"]))) == (names[0], names)


def test_bytes_that_are_an_address_are_that_address(shelf: Shelf, tmp_path: Path) -> None:
    table = pa.table({"id": ["1"], "title": ["Mug"], "image": [b"https://cdn.invalid/1.jpg"]})
    pq.write_table(table, tmp_path / "a.parquet")
    shelf.add(tmp_path / "a.parquet")
    assert images_of(shelf) == {"1": "https://cdn.invalid/1.jpg"}


def test_base64_in_a_text_is_taken_and_one_that_is_none_ends_nothing(
    shelf: Shelf, encoder: FakeEncoder, tmp_path: Path
) -> None:
    plain = base64.b64encode(A).decode()
    named = "data:image/jpeg;base64," + base64.b64encode(B).decode()
    broken = "data:image/jpeg;base64,????" + "x" * 400
    cells = [plain, named, broken, "x" * 5000 + ".jpg", "a;" * 400]
    rows = [{"id": str(i), "title": "Mug", "image": cell} for i, cell in enumerate(cells)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    report = shelf.add(path)
    found = images_of(shelf)
    assert [found["0"], found["1"]] == [f"upload://{content_hash(data)}" for data in (A, B)]
    assert (report.inserted, report.image_failed, encoder.images) == (5, 3, 2)


@pytest.mark.parametrize("kind", ["binary", "Hugging Face"])
def test_encode_refuses_bytes_by_name_rather_than_drop_them(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["1", "2"], "title": ["a", "b"], "image": KINDS[kind]}), path)
    with pytest.raises(InputError, match="holds its pictures as bytes"):
        encode_source(str(path), tmp_path / "out", EncodeOptions())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("side", "failed"), [("64", 0), ("65", 1)])
def test_encode_has_the_limits_of_pictures_that_add_has(
    side: str, failed: int, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(A)
    (tmp_path / "a.csv").write_text("id,title,image\n1,Mug,a.jpg\n")
    out = ["-o", str(tmp_path / "out"), "--encoder", str(tiny_clip_dir()), "--json"]
    done = CliRunner().invoke(
        main, ["encode", str(tmp_path / "a.csv"), *out, "--min-side", side, "--max-pixels", "5000"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["image_failed"] == failed


def test_workers_of_encode_are_told_the_limits() -> None:
    with limits(pixels=9, size=8, side=7):
        spec = EncoderSpec("clip", None, "float32", "f", None, limits=limits_now())
    with limits(**EncoderSpec.read(spec.dump()).limits):
        assert limits_now() == {"pixels": 9, "size": 8, "side": 7}
