"""A shelf moves: from a directory to an engine and back, whole, in as many tries as it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from engine_products import SETTINGS, fill, products
from engines import Milvus, Postgres, running

from kinshelf import Shelf
from kinshelf import open as open_shelf
from kinshelf.cli import main
from kinshelf.db.errors import CopyMismatch, EncoderMismatch, ShelfExists
from kinshelf.db.product import Product
from kinshelf.probe.predict.freshness import probe_facts
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.train import train_shelf
from kinshelf.store.base import AnyShelf
from kinshelf.store.engines import copy as copying
from kinshelf.store.engines.copy import copy_shelf, open_target
from kinshelf.store.shelf import DirectoryShelf


@pytest.fixture(scope="module", params=["postgres", "milvus"])
def engine(request: pytest.FixtureRequest) -> Iterator[Postgres | Milvus]:
    with running(request.param) as engine:
        assert isinstance(engine, Postgres | Milvus)
        yield engine


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def filled(path: Path) -> Shelf:
    """A shelf with a history: changes, an open reject, a probe, and products that came after it."""
    shelf = Shelf.create(path, encoder="fake")
    made, pairs = fill(shelf, 90)
    image, text = np.split(pairs, 2, axis=1)
    shelf.upsert([made[4].replace(title="Another")], image[4:5], text[4:5])
    shelf.remove(["p7"])
    shelf.upsert([Product("bad")], np.zeros((1, image.shape[1]), np.float32), None)
    train_shelf(shelf, SETTINGS)
    shelf.upsert([Product("late", category="Books")], image[:1], text[:1])
    shelf.relabel({"p1": "Books"})
    return shelf


def assert_same(one: AnyShelf, other: AnyShelf) -> None:
    mine, theirs = one.snapshot(), other.snapshot()
    assert mine.count == theirs.count
    for stored in mine.select():
        copied = theirs.get(stored.product.id)
        assert copied.product == stored.product
        assert copied.content_hash == stored.content_hash
        assert (copied.has_image, copied.has_text) == (stored.has_image, stored.has_text)
        pairs = mine.pairs([stored.row]), theirs.pairs([copied.row])
        np.testing.assert_array_equal(*pairs)
    assert [r["key"] for r in theirs.view.rejects()] == [r["key"] for r in mine.view.rejects()]
    assert theirs.view.attribute_types() == mine.view.attribute_types()
    assert theirs.view.categories() == mine.view.categories()


def test_there_and_back_again_everything_is_as_it_was(engine: Any, tmp_path: Path) -> None:
    def run(source: object, target: object) -> dict[str, Any]:
        command = ["copy", str(source), str(target), "--json", "--quiet"]
        done = CliRunner().invoke(main, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout))

    there, back = engine.address("there"), tmp_path / "back.shelf"
    queries = np.hstack(products(5, seed=3)[1:])
    with filled(tmp_path / "first.shelf") as first:
        report = run(first.path, there)
        assert (report["copied"], report["probes"], report["compared"]) == (90, 1, 90)
        assert run(first.path, there)["unchanged"] == 90
        run(there, back)
        expected = Predictor.for_shelf(first).predict(queries)
        for place in (there, back):
            with open_shelf(place) as copied:
                assert_same(first, copied)
                found = Predictor.for_shelf(copied).predict(queries)
                assert [f.probabilities for f in found] == [f.probabilities for f in expected]
                since = probe_facts(copied)["since_training"]
                # what was changed counts as added: a copy does not have what was before
                assert since["added"] == 2
                assert since["accuracy"] == probe_facts(first)["since_training"]["accuracy"]


def test_a_copy_that_was_cut_short_goes_on_where_it_stopped(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = engine.address("resumed")
    monkeypatch.setattr(copying, "BLOCK", 20)
    with filled(tmp_path / "s.shelf") as shelf:
        asked = iter([False, True])
        with open_target(there, shelf) as target:
            report = copy_shelf(shelf, target, stop=lambda: next(asked))
            assert report.interrupted
            assert report.copied == 40
        with open_target(there, shelf) as target:
            again = copy_shelf(shelf, target)
            assert again.copied == 90 - report.copied
            assert again.unchanged == report.copied
            assert_same(shelf, target)
        shelf.remove(["p11"])
        shelf.relabel({"p12": None})
        with open_target(there, shelf) as target:
            again = copy_shelf(shelf, target)
            assert (again.copied, again.removed, again.unchanged) == (1, 1, 88)
            assert_same(shelf, target)


def test_a_shelf_with_products_of_its_own_is_not_copied_over(engine: Any, tmp_path: Path) -> None:
    there = engine.address("own")
    with Shelf.create(tmp_path / "s.shelf", encoder="fake") as shelf:
        fill(shelf, 20)
        with open_target(there, shelf) as target:
            copy_shelf(shelf, target)
        with open_shelf(there) as changed:
            changed.remove(["p5"])
        with pytest.raises(ShelfExists, match="remove"):
            open_target(there, shelf)
    with (
        Shelf.create(tmp_path / "other.shelf", encoder="another") as other,
        pytest.raises(EncoderMismatch, match="another"),
    ):
        open_target(there, other)


def test_a_copy_that_differs_is_not_called_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = DirectoryShelf.commit

    def wrong(self: DirectoryShelf, head: Any, body: Any, vectors: Any = None) -> int:
        if vectors is not None and self.path.name == "copy.shelf":
            vectors[0] *= np.float32(1.000001)
        return commit(self, head, body, vectors)

    monkeypatch.setattr(DirectoryShelf, "commit", wrong)
    with Shelf.create(tmp_path / "s.shelf", encoder="fake") as shelf:
        fill(shelf, 20)
        with (
            open_target(tmp_path / "copy.shelf", shelf) as target,
            pytest.raises(CopyMismatch, match=r"1 of 20 products"),
        ):
            copy_shelf(shelf, target)


def test_a_probe_that_cannot_be_read_is_passed_over_and_no_other_is_copied_twice(
    tmp_path: Path,
) -> None:
    with filled(tmp_path / "s.shelf") as shelf:
        train_shelf(shelf, SETTINGS.override(epochs=3))
        (shelf.path / "probes/0001/probe.json").write_text("{}")
        for probes in (1, 0):
            with open_target(tmp_path / "copy.shelf", shelf) as target:
                report = copy_shelf(shelf, target)
                assert report.probes == probes
                assert len(target.snapshot().view.probes()) == 1
        train_shelf(shelf, SETTINGS.override(epochs=2))
        with open_target(tmp_path / "copy.shelf", shelf) as target:
            assert copy_shelf(shelf, target).probes == 1
            mine, theirs = (each.snapshot().view.probes() for each in (shelf, target))
            assert [p["metrics"] for p in theirs] == [p["metrics"] for p in mine[1:]]
