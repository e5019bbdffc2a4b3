"""LOCK is deleted, renamed or shared at random while two processes write: nothing acknowledged is
lost, and nothing else appears."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from faults.kill import nursery
from faults.world import Change, Model, apply, new_shelf, product, step
from faults.world import findings as found_by_verify

from kinshelf import Shelf
from kinshelf.db.errors import ShelfError
from kinshelf.store.log import lock

CHANGES = 12
SHARED = ["s0", "s1"]
"""Products that both change: of each, one row must be left."""


def impatient(work: Callable[[], Any]) -> Any:
    """Do it without waiting for a log that another holds."""
    saved, lock._PATIENCE = lock._PATIENCE, 0.05
    try:
        return work()
    finally:
        lock._PATIENCE = saved


def write(path: Path, seed: str, name: str, pipe: Connection) -> None:
    """In a process of its own: change products of its own; `version` or -1 for each on the pipe."""
    random = Random(f"{seed}/{name}")
    with Shelf.open(path, wait=0.2) as shelf:
        for version in range(1, CHANGES + 1):
            both = random.choice(SHARED)
            change = Change("upsert", {f"{name}{random.randrange(4)}": version, both: version})
            try:
                if random.random() < 0.1:
                    shelf.compact()
                apply(shelf, change)
                pipe.send((change.versions, True))
            except ShelfError:
                pipe.send((change.versions, False))
    pipe.send(None)


def _meddle(path: Path, random: Random, done: threading.Event) -> None:
    copy = path.with_name("linked.shelf")
    while not done.wait(random.random() * 0.01):
        with suppress(OSError, shutil.Error):
            way = random.randrange(3)
            if way == 0:
                (path / "LOCK").unlink()
            elif way == 1:
                (path / "LOCK").rename(path / "LOCK.old")
            else:
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(path, copy, copy_function=os.link)


def _case(path: Path, seed: str, base: Model, outcomes: Counter[str]) -> None:
    context, done = nursery(), threading.Event()
    meddler = threading.Thread(target=_meddle, args=(path, Random(seed), done))
    children = []
    for name in ("a", "b"):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=write, args=(path, seed, name, theirs))
        child.start()
        theirs.close()
        children.append((child, ours))
    meddler.start()
    model = base
    try:
        for child, ours in children:
            while (answer := ours.recv()) is not None:
                versions, acknowledged = answer
                outcomes["acknowledged" if acknowledged else "refused"] += 1
                if acknowledged:
                    model = step(model, Change("upsert", versions))
            child.join()
    finally:
        done.set()
        meddler.join()
    with Shelf.open(path) as shelf:
        stored = [one.product for one in shelf.snapshot().select()]
        assert len({one.id for one in stored}) == len(stored), f"{seed}: a product is there twice"
        assert not (found := found_by_verify(shelf)), f"{seed}: {found}"
    mine = {one.id: one for one in stored if one.id not in SHARED}
    expected = {k: product(k, v) for k, v in model.versions.items() if k not in SHARED}
    assert mine == expected, f"{seed}: {sorted(mine)}, expected {sorted(expected)}"


def run(directory: Path, seed: str, cases: int) -> Counter[str]:
    """Let two processes write so many times. Raises AssertionError for a broken promise."""
    outcomes = Counter[str]()
    for number in range(cases):
        path = directory / f"case{number}.shelf"
        base = new_shelf(path, f"{seed}/{number}", 3)
        _case(path, f"{seed}/{number}", base, outcomes)
        shutil.rmtree(directory / "linked.shelf", ignore_errors=True)
        shutil.rmtree(path)
    return outcomes
