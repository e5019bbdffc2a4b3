"""Readers in other processes while a writer adds, updates, removes and compacts.

A batch is one generation: all its products bear its number, and their vectors follow from id and
number. So an answer that sees half of a batch, or vectors of another state, shows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
from faults.kill import nursery
from faults.world import pairs, product

from kinshelf import Shelf
from kinshelf.db.product import Product
from kinshelf.store.snapshot import Snapshot

BATCH = 25


def torn(now: Snapshot, query: np.ndarray, *, whole: bool) -> str:
    """Why an answer mixes states; empty if it does not. `whole`: look at every product."""
    rows = now.view.rows()
    if len(rows) != now.count or now.count % BATCH:
        return f"{len(rows)} products in the catalogue, {now.count} in the log"
    found = now.kneighbors(query, 5).rows[0]
    near = now.view.by_rows(found)
    for row, vector in zip(found, now.pairs(found), strict=True):
        entry = near[int(row)].product
        if not np.allclose(vector, pairs(entry.id, _version(entry)), atol=1e-6):
            return f"row {row} has the vectors of another product"
    return _halved(now) if whole else ""


def _halved(now: Snapshot) -> str:
    sizes = Counter(_version(entry.product) for entry in now.select())
    return f"half a batch: {sizes}" if set(sizes.values()) - {BATCH} else ""


def _version(entry: Product) -> int:
    return int(entry.title.rpartition(" ")[2])


@dataclass
class Seen:
    """What one reader saw. Latencies in seconds, of a whole view each."""

    views: int = 0
    generations: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


def read_on(path: Path, seed: int, stop: Event, pipe: Connection) -> None:
    """Ask until reported to stop."""
    seen = Seen()
    with Shelf.open(path) as shelf:
        pipe.send("ready")
        while not stop.is_set():
            started = time.perf_counter()
            now = shelf.snapshot()
            whole = seen.views % 10 == 0
            problem = torn(now, pairs("query", seed + seen.views)[None], whole=whole)
            seen.latencies.append(time.perf_counter() - started)
            seen.problems += [problem] if problem else []
            seen.views += 1
            seen.generations.add(now.generation)
    pipe.send(seen)


def write(shelf: Shelf, number: int, first: int) -> None:
    """One batch: the products `first` to `first + BATCH`, all of version `number`."""
    names = [f"r{i:05d}" for i in range(first, first + BATCH)]
    image, text = np.split(np.stack([pairs(n, number) for n in names]), 2, axis=1)
    shelf.upsert([product(n, number) for n in names], image, text)


def run(
    directory: Path, rows: int, readers: int = 4, idle: float = 0, least: int = 0
) -> tuple[list[Seen], list[Seen]]:
    """What readers saw through an ingest, updates and compactions, and afterwards at rest.

    `idle` seconds at rest; `least`: write until the readers may have had that many views.
    """
    path = directory / "read.shelf"
    Shelf.create(path, encoder="supplied").close()
    with Shelf.open(path) as shelf:
        write(shelf, 0, 0)
        busy = _watch(path, readers, lambda: _work(shelf, rows, least))
        at_rest = _watch(path, readers, lambda: time.sleep(idle)) if idle else []
    return at_rest, busy


def _work(shelf: Shelf, rows: int, least: int) -> None:
    until = time.monotonic() + least / 28  # views a second that two cores give
    number = 1
    while number * BATCH < rows or time.monotonic() < until:
        write(shelf, number, number * BATCH % max(rows, BATCH))
        if number % 5 == 4:  # replaces a whole batch by another
            write(shelf, 100_000 + number, number * BATCH % max(rows, BATCH))
        if number % 40 == 20:
            shelf.compact()
        number += 1
    shelf.compact()


def _watch(path: Path, readers: int, work: Callable[[], None]) -> list[Seen]:
    context = nursery()
    stop = context.Event()
    pipes, children = [], []
    for seed in range(readers):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=read_on, args=(path, seed * 1000, stop, theirs))
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    for pipe in pipes:
        assert pipe.recv() == "ready"
    work()
    stop.set()
    seen = [pipe.recv() for pipe in pipes]
    for child in children:
        child.join()
    return seen
