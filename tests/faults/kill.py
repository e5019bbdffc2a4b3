"""A writer that is killed at random moments, and what it had acknowledged."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from faults.world import Model, apply, new_shelf, plan, reopen, step

from kinshelf import Shelf

PRELOADED = ["faults.kill", "faults.damage", "faults.readers", "kinshelf.store.maintain.compact",
             "kinshelf.store.ingest.add", "kinshelf.store.ingest.supplied",
             "duckdb", "faiss"]  # fmt: skip


def nursery() -> multiprocessing.context.ForkServerContext:
    """Where children come from: a server that has imported everything, so that each starts fast."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def write_on(path: Path, seed: str, number: int, model: Model, pipe: Connection) -> None:
    """Change the shelf for ever, one acknowledgement on the pipe a change."""
    pipe.send("opening")
    with Shelf.open(path) as shelf:
        while True:
            change = plan(seed, number, model)
            apply(shelf, change)
            pipe.send(number)
            model, number = step(model, change), number + 1
            if Random(f"{seed}/close/{number}").random() < 0.1:
                break
    write_on(path, seed, number, model, pipe)  # saved on closing, and opened again


@dataclass
class Tally:
    """What a run of kills came to."""

    kills: int = 0
    acknowledged: int = 0
    in_flight_kept: int = 0
    slowest_opening: float = 0.0


def run(directory: Path, seed: str, kills: int) -> Tally:
    """Kill a writer so many times. Raises AssertionError at the first broken promise."""
    context = nursery()
    path = directory / "killed.shelf"
    model, number, tally = new_shelf(path, seed, 5), 5, Tally()
    random = Random(seed)
    for _ in range(kills):
        known = _kill_one(context, path, seed, number, model, random)
        tally.acknowledged += known - number
        for done in range(number, known):
            model = step(model, plan(seed, done, model))
        after = step(model, plan(seed, known, model))
        allowed = [model, after] if after != model else [model]
        opened = reopen(path, allowed, verified=tally.kills % 4 == 0)
        tally.slowest_opening = max(tally.slowest_opening, opened.seconds)
        kept = opened.model is after
        tally.in_flight_kept += kept
        # A change that differs from the one that may be there: versions are never repeated.
        model, number = opened.model, known + 1
        tally.kills += 1
    return tally


def _kill_one(
    context: multiprocessing.context.ForkServerContext,
    path: Path,
    seed: str,
    number: int,
    model: Model,
    random: Random,
) -> int:
    """Start a writer, kill it, and return the number after the last one acknowledged."""
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=write_on, args=(path, seed, number, model, theirs))
    child.start()
    theirs.close()
    assert ours.recv() == "opening"
    for _ in range(random.choice([0, 0, 1, 2, 4, 8])):
        number += _is_change(ours.recv())
    time.sleep(random.random() ** 2 * 0.06)
    child.kill()
    child.join()
    try:
        while True:
            number += _is_change(ours.recv())
    except EOFError:
        ours.close()
    return number


def _is_change(message: object) -> bool:
    return isinstance(message, int)
