"""Vectors are checked as they are read, by several threads where there are many of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_index import WIDTH, made, put

from kinshelf import Shelf
from kinshelf.db.errors import ShelfDamaged
from kinshelf.store.log import checksums

ROWS = 200


@pytest.fixture(params=[1, 4])
def readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(checksums, "_APART", 0)
    monkeypatch.setenv("KINSHELF_THREADS", str(request.param))
    return int(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Five changes of 200 products each."""
    path = tmp_path / "toys.shelf"
    with Shelf.create(path, encoder="supplied") as shelf:
        for i in range(5):
            put(shelf, *made(ROWS, i), first=ROWS * i)
    return path


@pytest.mark.usefixtures("readers")
def test_sound_vectors_are_read_as_they_were_written(path: Path) -> None:
    with Shelf.open(path) as shelf:
        found = shelf.snapshot().pairs(np.arange(5 * ROWS))
    np.testing.assert_array_equal(found, np.concatenate([made(ROWS, i)[0] for i in range(5)]))


@pytest.mark.usefixtures("readers")
@pytest.mark.parametrize("damaged", [[0], [4], [3, 1]])
def test_the_first_change_whose_vectors_do_not_fit_is_named(path: Path, damaged: list[int]) -> None:
    file = next(path.glob("vectors-*.f32"))
    with file.open("r+b") as opened:
        for change in damaged:
            opened.seek((ROWS * change + 17) * 2 * WIDTH * 4 + 5)
            byte = opened.read(1)[0]
            opened.seek(-1, 1)
            opened.write(bytes([byte ^ 4]))
    first = ROWS * min(damaged)
    with pytest.raises(ShelfDamaged, match=rf"\(rows {first} to {first + ROWS - 1}\)"):
        Shelf.open(path)


@pytest.mark.usefixtures("readers")
def test_a_file_that_ends_too_early_is_damage(path: Path) -> None:
    file = next(path.glob("vectors-*.f32"))
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 100)
    with pytest.raises(ShelfDamaged, match=f"rows {4 * ROWS} to"):
        Shelf.open(path)
