"""`reembed`: another encoder for a whole shelf, resumable, switched at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from clip_models import write_tiny_clip
from conftest import FakeEncoder, make_catalogue

from kinshelf import Shelf
from kinshelf.db.errors import EncoderMismatch, ShelfDamaged
from kinshelf.db.images.cache import ImageCache
from kinshelf.db.product import MEAN
from kinshelf.store.log.manifest import Manifest
from kinshelf.store.maintain import reembed
from kinshelf.store.maintain.reembed import ReembedReport
from kinshelf.store.maintain.verify import verify_path

OTHER = Manifest(encoder="other", pictures=MEAN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    source = make_catalogue(tmp_path / "source", 30)
    Shelf.create(tmp_path / "toys.shelf", encoder="fake").close()
    with Shelf.open(tmp_path / "toys.shelf", encoder=FakeEncoder()) as shelf:
        shelf.add(source)
        shelf.remove(["p3"])
    return tmp_path / "toys.shelf"


def run(path: Path, encoder: FakeEncoder, stop: bool = False) -> ReembedReport:
    with Shelf.open(path) as shelf, shelf.writing():
        return reembed.reembed(
            shelf, shelf._ledger, encoder, OTHER, stop=lambda: stop, progress=lambda *_: None
        )


def test_every_product_gets_the_new_encoders_embedding_and_keeps_the_rest(path: Path) -> None:
    other = FakeEncoder("other", 24)
    with Shelf.open(path, encoder=FakeEncoder()) as shelf:
        before = {s.product.id: s.product for s in shelf.snapshot().select()}
    report = run(path, other)
    assert (report.products, report.done, report.pictures_gone) == (29, 29, {})
    with Shelf.open(path, encoder=other) as shelf:
        now = shelf.snapshot()
        assert {s.product.id: s.product for s in now.select()} == before
        stored = now.get("p7")
        expected = other.encode_texts([stored.product.text])[0]
        np.testing.assert_array_equal(now.pairs([stored.row])[0, 24:], expected)
        assert shelf.manifest.encoder == "other"
        assert shelf.similar(text="red thing number 0").neighbours[0].id == "p0"
    assert [f for f in verify_path(path)[0] if not f.harmless] == []


def test_an_interrupted_run_goes_on_where_it_stopped_and_changes_nothing_until_then(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembed, "ENCODED_BATCH", 10)
    other = FakeEncoder("other", 24)
    assert run(path, other, stop=True).interrupted
    assert other.texts == 10
    with Shelf.open(path, encoder=FakeEncoder()) as shelf:
        assert shelf.similar(text="red thing number 0").neighbours[0].id == "p0"
    report = run(path, other)
    assert (report.interrupted, report.done, other.texts) == (False, 19, 29)


@pytest.mark.parametrize("file", ["vectors.f32", "rows.jsonl"])
def test_damage_to_what_an_interrupted_run_left_is_embedded_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setattr(reembed, "ENCODED_BATCH", 20)
    assert run(path, FakeEncoder("other", 24), stop=True).interrupted
    staged = next(path.glob(f"reembed/*/{file}"))
    whole, random = staged.read_bytes(), Random("staged")
    places = random.sample(range(len(whole)), 12)
    for at in places:
        data = bytearray(staged.read_bytes())
        data[at] ^= 1 << random.randrange(8)
        staged.write_bytes(data)
    report = run(path, other := FakeEncoder("other", 24))
    assert report.done > 9
    with Shelf.open(path, encoder=other) as shelf:
        now = shelf.snapshot()
        for stored in now.select():
            pair = now.pairs([stored.row])[0]
            np.testing.assert_array_equal(pair[24:], other.encode_texts([stored.product.text])[0])
            assert (stored.has_image, stored.image_error) == (True, None)
    assert [f for f in verify_path(path)[0] if not f.harmless] == []


def test_damage_between_embedding_and_the_switch_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, switch = path / "MANIFEST", reembed._switch

    def damaged(shelf: Any, ledger: Any, staged: Any, *more: Any) -> None:
        file = staged._vectors
        file.write_bytes(file.read_bytes()[:-100] + bytes(100))
        switch(shelf, ledger, staged, *more)

    monkeypatch.setattr(reembed, "_switch", damaged)
    manifest = before.read_bytes()
    with pytest.raises(ShelfDamaged, match="run the same command again"):
        run(path, FakeEncoder("other", 24))
    assert before.read_bytes() == manifest
    monkeypatch.undo()
    report = run(path, other := FakeEncoder("other", 24))
    assert report.done == 1
    with Shelf.open(path, encoder=other) as shelf:
        assert shelf.similar(text="red thing number 0").neighbours[0].id == "p0"


def test_a_product_whose_picture_is_gone_is_reported_and_known_by_its_text(path: Path) -> None:
    (path.parent / "source" / "p5.png").unlink()
    report = run(path, other := FakeEncoder("other", 24))
    assert list(report.pictures_gone) == ["p5"]
    with Shelf.open(path, encoder=other) as shelf:
        assert not shelf.snapshot().get("p5").has_image


def test_the_old_encoder_is_refused_afterwards_and_the_same_one_beforehand(path: Path) -> None:
    with pytest.raises(EncoderMismatch, match="already"):
        run(path, FakeEncoder())
    run(path, FakeEncoder("other", 24))
    with pytest.raises(EncoderMismatch):
        Shelf.open(path, encoder=FakeEncoder())


@pytest.mark.wide
def test_the_command_changes_the_precision_of_a_shelf_and_states_what_is_next(
    tmp_path: Path,
) -> None:
    from click.testing import CliRunner

    from kinshelf.cli import main

    tiny, shelf = str(write_tiny_clip(tmp_path / "tiny")), str(tmp_path / "s.shelf")
    source = str(make_catalogue(tmp_path / "source", 6))
    made = ["init", "--encoder", tiny, "--precision", "float32"]
    for command in (made, ["add", source], ["reembed", "--precision", "bf16"]):
        done = CliRunner().invoke(main, [*command, "--shelf", shelf])
        assert done.exit_code == 0, done.output
    assert "6 products" in done.stderr
    with Shelf.open(shelf) as opened:
        assert opened.manifest.precision == "bf16"
        assert opened.similar(text="red thing number 0", k=1).neighbours[0].id == "p0"


def _lost(path: Path) -> None:
    (path / "images" / "urls.jsonl").unlink()


def _torn(path: Path) -> None:
    log = path / "images" / "urls.jsonl"
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2].rpartition(b"\n")[0])


def _changed(path: Path) -> None:
    log = path / "images" / "urls.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"hash": "', b'"hash": "f'))


@pytest.mark.parametrize("harm", [_lost, _torn, _changed])
def test_no_picture_is_dropped_whose_file_is_there(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "sent.shelf"
    data = [(make_catalogue(tmp_path / "c", 6).parent / f"p{i}.png").read_bytes() for i in range(6)]
    Shelf.create(path, encoder="fake").close()
    cache = ImageCache(path / "images")
    for i in range(3):
        cache.put(f"http://127.0.0.1:9/{i}.png", data[i])
    cells = {"id": [f"p{i}" for i in range(3)], "title": ["toy"] * 3}
    sent = pa.table({**cells, "image": [f"http://127.0.0.1:9/{i}.png" for i in range(3)]})
    more = {"id": [f"q{i}" for i in range(3)], "title": ["toy"] * 3, "image": data[3:]}
    with Shelf.open(path, encoder=FakeEncoder()) as shelf:
        shelf.add(sent)
        shelf.add(pa.table(more))
    harm(path)
    report = run(path, other := FakeEncoder("other", 24))
    assert (report.products, report.pictures_gone) == (6, {})
    with Shelf.open(path, encoder=other) as shelf:
        stored = shelf.snapshot().select()
        assert all(one.has_image for one in stored)
        kept = {one.image_hash for one in stored}
        ImageCache(path / "images").drop_unused(
            {one.product.image for one in stored if one.product.image}, set(), time.time() + 1
        )
    files = {file.stem for file in (path / "images").glob("??/*")}
    assert {one.image_hash for one in stored if one.product.id[0] == "q"} <= files <= kept


def test_a_damaged_line_leads_to_no_other_picture(tmp_path: Path) -> None:
    data = [(make_catalogue(tmp_path / "c", 2).parent / f"p{i}.png").read_bytes() for i in range(2)]
    cache = ImageCache(tmp_path / "images")
    for i in range(2):
        cache.put(f"http://toys.example/{i}.png", data[i])
    log = tmp_path / "images" / "urls.jsonl"
    log.write_bytes(log.read_bytes().replace(b"example/1.png", b"example/0.png"))
    found = ImageCache(tmp_path / "images")
    assert found.get("http://toys.example/0.png") == cache.get("http://toys.example/0.png")
    assert found.get("http://toys.example/1.png") is None
