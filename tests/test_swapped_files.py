"""A handle that is open while a backup is put back, or the directory is swapped, loses nothing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.swapped import ids, moved, over, put

from kinshelf import Shelf
from kinshelf.db.errors import ShelfError
from kinshelf.store.maintain.verify import verify_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "toys.shelf"
    with Shelf.create(path, encoder="fake") as shelf:
        put(shelf, "a", 3)
    return path


@pytest.mark.parametrize("swap", [over, moved])
@pytest.mark.parametrize("longer", [True, False], ids=["a longer log", "a shorter log"])
def test_what_a_backup_holds_outlives_a_handle_that_was_open_before(
    path: Path, tmp_path: Path, swap: Callable[[Path, Path], None], longer: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    backup = Path(shutil.copytree(path, tmp_path / "backup"))
    with Shelf.open(backup) as other:
        if longer:
            put(other, "b", 40, "of the backup, with a title of its own")
            put(other, "c", 5)
    kept = ids(backup)
    with Shelf.open(path) as shelf:
        for i in range(2 if longer else 6):
            put(shelf, f"d{i}", 2, "short")
        swap(backup, path)
        with caplog.at_level(logging.WARNING, logger="kinshelf"):
            put(shelf, "e", 1)
        assert "read anew" in caplog.text
        assert {s.product.id for s in shelf.snapshot().select()} == kept | {"e0"}
    assert ids(path) == kept | {"e0"}
    assert [f for f in verify_path(path)[0] if not f.harmless] == []


def test_a_swap_amid_a_change_is_refused_before_anything_is_written(
    path: Path, tmp_path: Path
) -> None:
    backup = Path(shutil.copytree(path, tmp_path / "backup"))
    with Shelf.open(backup) as other:
        put(other, "b", 40)
    with Shelf.open(path) as shelf:
        put(shelf, "d", 2)
        with pytest.raises(ShelfError, match="replaced"), shelf.writing():
            row = shelf.known(["d0"])["d0"].row
            over(backup, path)
            shelf.commit({"kind": "remove", "command": "remove", "removed": [row]}, {})
    assert ids(path) == ids(backup)


def test_a_reader_follows_the_files_that_took_the_place_of_those_it_read(
    path: Path, tmp_path: Path
) -> None:
    backup = Path(shutil.copytree(path, tmp_path / "backup"))
    with Shelf.open(backup) as other:
        put(other, "b", 4)
    with Shelf.open(path) as reader:
        assert reader.snapshot().count == 3
        moved(backup, path)
        assert {s.product.id for s in reader.snapshot().select()} == ids(backup)
