"""What was encoded once in a run is not encoded again."""

from __future__ import annotations

import csv
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeEncoder, make_catalogue

from kinshelf import Shelf
from kinshelf.commands.terminal.output import Output
from kinshelf.commands.terminal.progress import build_index
from kinshelf.store import AddOptions
from kinshelf.store.ingest.pictures import Remembered


def repeated(folder: Path, times: int) -> Path:
    """Thirty products of three texts and their pictures, many times over under other ids."""
    path = make_catalogue(folder, 30)
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for i in range(times):
            writer.writerows([row | {"id": f"{row['id']}-{i}"} for row in rows])
    return path


def test_equal_pictures_and_texts_are_encoded_once_in_a_run_whatever_the_batch(
    tmp_path: Path, shelf: Shelf, encoder: FakeEncoder
) -> None:
    report = shelf.add(repeated(tmp_path / "many", 4), AddOptions(batch_size=7))
    assert report.inserted == 120
    assert (encoder.images, encoder.texts) == (30, 30)
    now = shelf.snapshot()
    rows = [[now.get(f"p{i}-{j}").row for i in range(30)] for j in range(4)]
    for other in rows[1:]:
        np.testing.assert_array_equal(now.pairs(other), now.pairs(rows[0]))


def test_only_so_many_embeddings_are_remembered_the_least_recent_go_first() -> None:
    remembered = Remembered(limit=2)
    for name in ("a", "b"):
        remembered.put(name, np.ones(3, dtype=np.float32))
    remembered.get("a")
    remembered.put("c", np.ones(3, dtype=np.float32))
    assert [remembered.get(name) is None for name in "abc"] == [False, True, False]


def test_what_is_remembered_does_not_keep_its_batch_alive() -> None:
    remembered = Remembered()
    remembered.put("a", np.ones((64, 3), dtype=np.float32)[0])
    row = remembered.get("a")
    assert row is not None
    assert row.base is None


def test_the_encoder_is_let_go_of_before_the_index_is_built_and_loaded_when_needed_again(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = shelf.use_encoder(FakeEncoder())
    shelf.add(make_catalogue(tmp_path / "some", 3))
    there, alive = weakref.ref(used), []
    del used
    monkeypatch.setattr(shelf, "build_index", lambda **_: alive.append(there() is not None))
    build_index(Output(shelf.path, as_json=False, quiet=True), shelf)
    gc.collect()
    assert alive == [False]
    again = FakeEncoder()
    monkeypatch.setattr("kinshelf.store.encode.canary.load_encoder_of", lambda *_: again)
    assert shelf.encoder is again
