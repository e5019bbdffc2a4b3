"""`reembed`: another encoder for a whole shelf, resumable, switched at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clip_models import write_tiny_clip
from conftest import FakeEncoder, make_catalogue

from kinshelf import Shelf
from kinshelf.db.errors import EncoderMismatch
from kinshelf.store.log.manifest import Manifest
from kinshelf.store.maintain import reembed
from kinshelf.store.maintain.reembed import ReembedReport
from kinshelf.store.maintain.verify import verify_path

OTHER = Manifest(encoder="other")


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
