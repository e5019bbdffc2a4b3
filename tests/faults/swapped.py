"""A backup is put back, or the directory is swapped, while a handle is open and writes on: what the
backup holds and what was acknowledged since is there, and nothing else."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
from conftest import unit

from kinshelf import Shelf
from kinshelf.db.product import Product
from kinshelf.store.maintain.verify import verify_path

DIMENSION = 8


def put(shelf: Shelf, first: str, count: int, title: str = "toy") -> None:
    rng = np.random.default_rng(len(first))
    image, text = (unit(rng.standard_normal((count, DIMENSION))) for _ in "it")
    shelf.upsert([Product(f"{first}{i}", title) for i in range(count)], image, text)


def ids(path: Path) -> set[str]:
    with Shelf.open(path) as shelf:
        return {stored.product.id for stored in shelf.snapshot().select()}


def over(backup: Path, path: Path) -> None:
    """As `cp -r backup/* shelf/`: the same files, other content."""
    for name in ("log-0.wal", "vectors-0.f32", "MANIFEST"):
        shutil.copyfile(backup / name, path / name)
    (path / "TIP").unlink(missing_ok=True)


def moved(backup: Path, path: Path) -> None:
    """As `mv shelf old; cp -r backup shelf`."""
    path.rename(path.with_name("old"))
    shutil.copytree(backup, path)
    (path / "TIP").unlink(missing_ok=True)


def _case(directory: Path, random: Random) -> str:
    path, backup = directory / "toys.shelf", directory / "backup"
    with Shelf.create(path, encoder="fake") as shelf:
        put(shelf, "a", random.randint(1, 5))
    shutil.copytree(path, backup)
    with Shelf.open(backup) as other:
        for i in range(random.randrange(4)):
            put(other, f"b{i}_", random.randint(1, 40), "of the backup " * random.randrange(9))
    expected, swap = ids(backup), random.choice((over, moved))
    with Shelf.open(path) as shelf:
        for i in range(random.randrange(6)):
            put(shelf, f"d{i}_", random.randint(1, 9), "short")
        if random.random() < 0.5:
            shelf.snapshot()
        swap(backup, path)
        for i in range(random.randint(1, 3)):
            count = random.randint(1, 5)
            put(shelf, f"e{i}_", count)
            expected |= {f"e{i}_{j}" for j in range(count)}
        if random.random() < 0.3:
            shelf.compact()
        assert {s.product.id for s in shelf.snapshot().select()} == expected
    assert ids(path) == expected
    assert [f.problem for f in verify_path(path)[0] if not f.harmless] == []
    return swap.__name__


def run(directory: Path, seed: str, count: int) -> Counter[str]:
    """`count` cases; how many of which way."""
    outcomes = Counter[str]()
    for case in range(count):
        folder = directory / str(case)
        folder.mkdir()
        outcomes[_case(folder, Random(f"{seed}/{case}"))] += 1
        shutil.rmtree(folder)
    return outcomes
