"""Mapped files whose bytes go away while they are read: an error, and no end of the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_swapped_files import put

from kinshelf import Shelf
from kinshelf.db.errors import ShelfError
from kinshelf.db.mapping import check_whole, is_whole, mapped
from kinshelf.store import snapshot
from kinshelf.store.search.planner import Rows

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guard is Linux's")

SEARCH = """
import os, sys
from kinshelf import Shelf
from kinshelf.db.errors import ShelfDamaged
from kinshelf.store.search import exact
path, what = sys.argv[1], sys.argv[1] + "/vectors-0.f32"
with Shelf.open(path) as shelf:
    now = shelf.snapshot()
    pair = now.pairs([5])
    whole = now.kneighbors(pair, 3).rows
    plain = exact.products
    def cut(*arguments):
        os.truncate(what, 4096)  # between the look at its length and its first page
        return plain(*arguments)
    exact.products = cut
    data = open(what, "rb").read()
    try:
        print(now.kneighbors(pair, 3).rows.tolist() == whole.tolist())
    except ShelfDamaged as error:
        print("ShelfDamaged", "was cut while it was read" in str(error))
    exact.products = plain
    open(what, "r+b").write(data)
    print(shelf.snapshot().kneighbors(pair, 3).rows.tolist() == whole.tolist())
"""


def child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_search_whose_vectors_are_cut_meanwhile_is_an_error_until_they_are_back(
    tmp_path: Path,
) -> None:
    path = tmp_path / "toys.shelf"
    with Shelf.create(path, encoder="fake") as shelf:
        put(shelf, "a", 3000)
    done = child(SEARCH, path)
    assert (done.returncode, done.stdout) == (0, "ShelfDamaged True\nTrue\n"), done.stderr


def test_what_was_cut_reads_as_zeros_and_is_known_for_it(tmp_path: Path) -> None:
    done = child(
        "import os, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from kinshelf.db.mapping import is_whole, mapped\n"
        "path, other = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "for each in (path, other): np.ones(1 << 18, np.float32).tofile(each)\n"
        "array, beside = (mapped(each, np.float32, (256, 1024)) for each in (path, other))\n"
        "os.truncate(path, 1 << 17)\n"
        "total = float(array.sum()), float((array[::2] @ array[0]).sum())\n"
        "print(total[0] <= 1 << 15, is_whole(array), is_whole(array[3:]), is_whole(beside))\n"
        "print(float(beside.sum()) == 1 << 18)\n",
        tmp_path / "a",
        tmp_path / "b",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True False False True\nTrue\n"


def test_a_signal_elsewhere_ends_the_process_as_ever(tmp_path: Path) -> None:
    done = child(
        "import mmap, os, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from kinshelf.db.mapping import mapped\n"
        "for name in ('a', 'b'): Path(sys.argv[1], name).write_bytes(bytes(1 << 16))\n"
        "ours = mapped(Path(sys.argv[1], 'a'), np.uint8)\n"
        "theirs = np.memmap(Path(sys.argv[1], 'b'), np.uint8, 'r')\n"
        "os.truncate(Path(sys.argv[1], 'b'), 0)\n"
        "print(theirs.sum())\n",
        tmp_path,
    )
    assert done.returncode == -7, (done.returncode, done.stdout)


def test_a_whole_file_reads_as_numpy_reads_it(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((100, 8), dtype=np.float32)
    rows.tofile(tmp_path / "rows")
    array = mapped(tmp_path / "rows", np.float32, (100, 8))
    np.testing.assert_array_equal(array, rows)
    check_whole(array)
    assert is_whole(array)
    with pytest.raises(ValueError, match="mmap length"):
        mapped(tmp_path / "rows", np.float32, (101, 8))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ShelfError, match="no regular file"):
        mapped(tmp_path / "pipe", np.float32)


def test_a_graph_whose_file_is_cut_meanwhile_answers_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is derived: what it cannot say any more is computed."""
    asked: list[bool] = []

    def found(rows: Rows, queries: np.ndarray, k: int) -> tuple[np.ndarray, bool]:
        asked.append(rows.graph is not None)
        return (np.zeros((1, k), np.int64), True) if rows.graph else real(rows, queries, k)

    with Shelf.create(tmp_path / "toys.shelf", encoder="fake") as shelf:
        put(shelf, "a", 50)
        now = shelf.snapshot()
        pair = now.pairs([5])
        exact = now.kneighbors(pair, 3).rows.tolist()
        real = snapshot._found
        monkeypatch.setattr(snapshot, "_found", found)
        monkeypatch.setattr(now, "_index_of", lambda _: SimpleNamespace(whole=False, vectors=None))
        assert now.kneighbors(pair, 3).rows.tolist() == exact
    assert asked == [True, False]
