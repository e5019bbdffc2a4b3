"""Two writers never change one log, whatever becomes of LOCK; a `cp -al` is a copy from then on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from faults import deleted
from test_swapped_files import ids, put

from kinshelf import Shelf
from kinshelf.db.errors import ShelfLocked
from kinshelf.store.maintain.verify import verify_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "toys.shelf"
    with Shelf.create(path, encoder="fake") as shelf:
        put(shelf, "a", 3)
    return path


def healthy(path: Path) -> bool:
    return not [finding for finding in verify_path(path)[0] if not finding.harmless]


def linked(path: Path, target: Path) -> Path:
    """As `cp -al path target`."""
    shutil.copytree(path, target, copy_function=os.link)
    return target


def test_a_writer_whose_lock_was_deleted_is_refused_and_another_goes_on(path: Path) -> None:
    with Shelf.open(path) as first, Shelf.open(path) as second:
        with first.writing():
            row = first.known(["a0"])["a0"].row
            (path / "LOCK").unlink()
            put(second, "b", 2)
            head = {"kind": "remove", "command": "remove", "removed": [row]}
            with pytest.raises(ShelfLocked, match="deleted or replaced"):
                first.commit(head, {})
            with pytest.raises(ShelfLocked, match="deleted or replaced"):
                first.set_manifest(dimension=9)
        put(first, "c", 1)  # it was not poisoned: nothing was written
    assert ids(path) == {"a0", "a1", "a2", "b0", "b1", "c0"}
    assert healthy(path)


def test_a_compaction_whose_lock_was_deleted_does_not_flip(path: Path) -> None:
    with Shelf.open(path) as first, first.writing():
        (path / "LOCK").unlink()
        with Shelf.open(path) as second:
            put(second, "b", 2)
        with pytest.raises(ShelfLocked):
            first.compact()
    assert ids(path) == {"a0", "a1", "a2", "b0", "b1"}
    assert healthy(path)


def test_who_begins_while_another_writes_under_a_deleted_lock_waits_for_it(path: Path) -> None:
    with Shelf.open(path) as first:
        first.snapshot()
        with first.writing(), first._ledger._alone():
            (path / "LOCK").unlink()
            with Shelf.open(path) as second, pytest.raises(ShelfLocked, match="LOCK is free"):
                deleted.impatient(lambda: put(second, "b", 1))
    assert ids(path) == {"a0", "a1", "a2"}


@pytest.mark.parametrize("compacted", [False, True])
def test_a_linked_copy_and_its_original_go_their_own_ways(
    path: Path, tmp_path: Path, compacted: bool
) -> None:
    with Shelf.open(path) as shelf:
        if compacted:
            shelf.compact()
        copy = linked(path, tmp_path / "copy.shelf")
        put(shelf, "b", 40)
    assert ids(copy) == {"a0", "a1", "a2"}
    assert healthy(copy)
    with Shelf.open(copy) as other, Shelf.open(path) as shelf:
        put(other, "c", 2)
        put(shelf, "d", 1)
        put(other, "e", 1)
        assert {s.product.id for s in other.snapshot().select()} == ids(copy)
    assert ids(copy) == {"a0", "a1", "a2", "c0", "c1", "e0"}
    assert ids(path) == {"a0", "a1", "a2", *(f"b{i}" for i in range(40)), "d0"}
    assert healthy(copy)
    assert healthy(path)
    assert {f.stat().st_nlink for f in copy.iterdir() if f.suffix in {".wal", ".f32"}} == {1}


def test_a_linked_copy_has_a_lock_of_its_own(path: Path, tmp_path: Path) -> None:
    put_once = Shelf.open(path)
    put(put_once, "b", 1)
    put_once.close()
    copy = linked(path, tmp_path / "copy.shelf")
    with Shelf.open(path) as shelf, shelf.writing(), Shelf.open(copy) as other:
        put(other, "c", 1)
    assert (path / "LOCK").stat().st_nlink == (copy / "LOCK").stat().st_nlink == 1


def test_random_deletions_of_the_lock_lose_nothing(tmp_path: Path) -> None:
    outcomes = deleted.run(tmp_path, "ci", 3)
    assert {"acknowledged", "refused"} <= set(outcomes)
