"""Files that are cut, half-written or replaced meanwhile; pictures that take too long."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_swapped_files import put

from kinshelf import Shelf
from kinshelf.db.errors import ImageRejected, ShelfDamaged
from kinshelf.db.files import written
from kinshelf.db.images.decode import decode_image
from kinshelf.probe.evaluate.methods import write_evaluation
from kinshelf.store.maintain import verify as module
from kinshelf.store.maintain.verify import verify_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "toys.shelf"
    with Shelf.create(path, encoder="fake") as shelf:
        put(shelf, "a", 3000)
    return path


@pytest.mark.parametrize("size", [0, 4096, 3000 * 64 - 1])
def test_a_vectors_file_that_was_cut_is_an_error_and_no_signal(path: Path, size: int) -> None:
    with Shelf.open(path) as shelf:
        pair = shelf.snapshot().pairs([5])
        assert shelf.snapshot().kneighbors(pair, 3).rows.shape == (1, 3)
        whole = (path / "vectors-0.f32").read_bytes()
        os.truncate(path / "vectors-0.f32", size)
        with pytest.raises(ShelfDamaged, match=r"vectors-0\.f32 was cut"):
            shelf.snapshot()
        with (path / "vectors-0.f32").open("r+b") as file:
            file.write(whole)
        assert shelf.snapshot().kneighbors(pair, 3).rows.shape == (1, 3)


@pytest.mark.parametrize("step", ["survey_of", "_catalogue", "catalogue_file", "index_file"])
def test_verify_beside_a_compaction_reports_no_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with Shelf.open(path) as shelf:
        shelf.remove([f"a{i}" for i in range(40)])
    real, done = getattr(module, step), []

    def compacting(*arguments: Any) -> Any:
        found = real(*arguments)
        if not done:
            done.append(True)
            with Shelf.open(path) as other:
                put(other, "b", 3)
                other.compact()
        return found

    monkeypatch.setattr(module, step, compacting)
    assert [f for f in verify_path(path)[0] if not f.harmless] == []
    assert done


def test_verify_beside_a_writer_that_does_not_pause_reports_no_damage(path: Path) -> None:
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.wait(0.05):
            with Shelf.open(path) as shelf:
                put(shelf, f"w{number}-", 20)
                shelf.compact()
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(6):
            assert [f for f in verify_path(path)[0] if not f.harmless] == []
    finally:
        done.set()
        thread.join()


class _Full(Exception):
    pass


def test_what_was_there_stays_where_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text("whole")
    target.chmod(0o640)
    with pytest.raises(_Full), written(target) as file:
        file.write_text("ha")
        raise _Full
    assert target.read_text() == "whole"
    with written(target) as file:
        file.write_text("new")
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("new", 0o640)
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_an_evaluation_on_a_full_disk_leaves_no_empty_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def evaluate(write: Callable[..., None] | None) -> None:
        if write:
            monkeypatch.setattr(Path, "write_text", write)
        proba = np.array([[0.9, 0.1], [0.2, 0.8]])
        write_evaluation(tmp_path / "out", {"probe": proba}, ["a", "b"], ["a", "b"])

    with pytest.raises(OSError, match="No space"):
        evaluate(full)
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    evaluate(None)
    assert all(one.stat().st_size for one in (tmp_path / "out").iterdir())


def progressive(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan is given again and again."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 30)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    head = data.rindex(b"\xff\xc4", 0, last)
    return data[:head] + data[head:-2] * (scans - data.count(b"\xff\xda") + 1) + data[-2:]


def test_a_jpeg_of_very_many_passes_is_refused_at_once_and_a_usual_one_is_not() -> None:
    with pytest.raises(ImageRejected) as caught:
        decode_image(progressive(4000, 60))
    assert caught.value.reason == "too-many-scans"
    file = io.BytesIO()
    Image.new("RGB", (3000, 2000), (200, 30, 30)).save(file, "JPEG", progressive=True)
    assert decode_image(file.getvalue()).size == (3000, 2000)
