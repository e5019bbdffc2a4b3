"""The next batch's pictures are decoded while one is encoded; nothing else comes early."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeEncoder, make_catalogue
from PIL import Image

from kinshelf import Shelf
from kinshelf.db.errors import DuplicateId
from kinshelf.db.product import Product
from kinshelf.store import AddOptions

SIZE = 5
OPTIONS = AddOptions(batch_size=SIZE)


class Watching(FakeEncoder):
    """Counts decoded pictures, and at each encoding notes how many there are a moment later."""

    def __init__(self) -> None:
        super().__init__()
        self.decoded = 0
        self.seen: list[int] = []
        self._changed = threading.Condition()

    def preprocess(self, image: Image.Image) -> np.ndarray:
        with self._changed:
            self.decoded += 1
            self._changed.notify_all()
        return super().preprocess(image)

    def encode_pixels(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        wanted = self.images + len(pixels) + SIZE
        with self._changed:
            self._changed.wait_for(lambda: self.decoded >= wanted, timeout=0.5)
            self.seen.append(self.decoded)
        return super().encode_pixels(pixels)


@pytest.fixture
def encoder() -> Watching:
    return Watching()


def test_the_next_batch_is_decoded_during_an_encoding_and_no_more_than_that(
    tmp_path: Path, shelf: Shelf, encoder: Watching
) -> None:
    shelf.add(make_catalogue(tmp_path / "source", 5 * SIZE), OPTIONS)
    assert encoder.seen == [2 * SIZE, 3 * SIZE, 4 * SIZE, 5 * SIZE, 5 * SIZE]


def test_a_stop_leaves_the_decoded_batch_out_and_out_of_the_counts(
    tmp_path: Path, shelf: Shelf
) -> None:
    source = make_catalogue(tmp_path / "source", 3 * SIZE)
    report = shelf.add(source, OPTIONS, stop=lambda: True)
    assert (report.inserted, report.unchanged, report.interrupted) == (SIZE, 0, True)
    again = shelf.add(source, OPTIONS, stop=lambda: True)
    assert (again.inserted, again.unchanged) == (0, SIZE)
    last = shelf.add(source, OPTIONS)
    assert (last.inserted, last.unchanged, last.interrupted) == (2 * SIZE, SIZE, False)


def test_trouble_in_a_batch_keeps_the_batches_before_it(tmp_path: Path, shelf: Shelf) -> None:
    shelf.upsert([Product("p12", title="here before")])
    refusing = AddOptions(batch_size=SIZE, on_conflict="error")
    with pytest.raises(DuplicateId, match="p12"):
        shelf.add(make_catalogue(tmp_path / "source", 3 * SIZE), refusing)
    assert sorted(p.product.id for p in shelf.snapshot().select()) == sorted(
        [f"p{i}" for i in range(2 * SIZE)] + ["p12"]
    )


def test_a_damaged_picture_costs_only_itself(tmp_path: Path, shelf: Shelf) -> None:
    source = make_catalogue(tmp_path / "source", 3 * SIZE)
    path = source.parent / "p7.png"
    path.write_bytes(path.read_bytes()[:60])
    report = shelf.add(source, OPTIONS)
    assert (report.inserted, report.image_failed) == (3 * SIZE, 1)


def test_skipped_and_unchanged_rows_are_counted_once_and_not_decoded(
    tmp_path: Path, shelf: Shelf, encoder: Watching
) -> None:
    source = make_catalogue(tmp_path / "source", 3 * SIZE)
    shelf.add(source, OPTIONS)
    decoded = encoder.decoded
    assert shelf.add(source, OPTIONS).unchanged == 3 * SIZE
    assert shelf.add(source, AddOptions(batch_size=SIZE, on_conflict="skip")).skipped == 3 * SIZE
    assert encoder.decoded == decoded


def test_an_encoder_that_fails_stops_at_its_batch(
    tmp_path: Path, shelf: Shelf, encoder: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Iterator[None]:
        raise DuplicateId("any error of ours")

    monkeypatch.setattr(encoder, "encode_pixels", fail)
    with pytest.raises(DuplicateId):
        shelf.add(make_catalogue(tmp_path / "source", 3 * SIZE), OPTIONS)
    assert shelf.snapshot().count == 0
