"""Readers in other processes while a writer adds, updates, removes and compacts.

A batch is one generation: all its products bear its number, and their vectors follow from id and
number. So an answer that sees half of a batch, or vectors of another state, shows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
from faults.kill import nursery
from faults.world import halves, product

from kinshelf.store import Shelf
from kinshelf.store.snapshot import Snapshot

BATCH = 25


def torn(now: Snapshot, query: np.ndarray) -> str:
    """Why an answer mixes states; empty if it does not."""
    stored = now.select()
    if len(stored) != now.count:
        return f"{len(stored)} products in the catalogue, {now.count} in the log"
    by_batch: dict[str, int] = {}
    for entry in stored:
        version = entry.product.title.rpartition(" ")[2]
        by_batch[version] = by_batch.get(version, 0) + 1
    if any(count != BATCH for count in by_batch.values()):
        return f"half a batch: {by_batch}"
    found = now.kneighbors(query, 5)
    neighbours = now.view.by_rows(found.rows[0])
    for row in found.rows[0]:
        entry = neighbours[int(row)]
        expected = halves(entry.product.id, int(entry.product.title.rpartition(" ")[2]))
        if not np.allclose(now.halves([int(row)])[0], expected, atol=1e-6):
            return f"row {row} has the vectors of another product"
    return ""


@dataclass
class Seen:
    """What one reader saw. Latencies in seconds, of a whole view each."""

    views: int = 0
    generations: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


def read_on(path: Path, seed: int, stop: Event, pipe: Connection) -> None:
    """Ask until told to stop."""
    seen = Seen()
    with Shelf.open(path) as shelf:
        pipe.send("ready")
        while not stop.is_set():
            started = time.perf_counter()
            now = shelf.snapshot()
            problem = torn(now, halves("query", seed + seen.views)[None])
            seen.latencies.append(time.perf_counter() - started)
            seen.problems += [problem] if problem else []
            seen.views += 1
            seen.generations.add(now.generation)
    pipe.send(seen)


def write(shelf: Shelf, number: int, first: int) -> None:
    """One batch: the products `first` to `first + BATCH`, all of version `number`."""
    names = [f"r{i:05d}" for i in range(first, first + BATCH)]
    image, text = np.split(np.stack([halves(n, number) for n in names]), 2, axis=1)
    shelf.upsert([product(n, number) for n in names], image, text)


def run(
    directory: Path, rows: int, readers: int = 4, idle_views: int = 0, least: int = 0
) -> tuple[list[Seen], list[Seen]]:
    """What readers saw while nothing was written, and through an ingest, updates and compactions.

    `least`: the writer goes on until the readers have had about so many views together.
    """
    path = directory / "read.shelf"
    Shelf.create(path, encoder="brought").close()
    with Shelf.open(path) as shelf:
        write(shelf, 0, 0)
        idle = _watch(path, readers, lambda _: time.sleep(1 + idle_views / 200))
        busy = _watch(path, readers, lambda _: _work(shelf, rows, least))
    return idle, busy


def _work(shelf: Shelf, rows: int, least: int) -> None:
    until = time.monotonic() + least / 100
    number = 1
    while number * BATCH < rows or time.monotonic() < until:
        write(shelf, number, number * BATCH % max(rows, BATCH))
        if number % 5 == 4:  # replaces a whole batch by another
            write(shelf, 100_000 + number, number * BATCH % max(rows, BATCH))
        if number % 40 == 20:
            shelf.compact()
        number += 1
    shelf.compact()


def _watch(path: Path, readers: int, work: object) -> list[Seen]:
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
    assert callable(work)
    work(None)
    stop.set()
    seen = [pipe.recv() for pipe in pipes]
    for child in children:
        child.join()
    return seen
