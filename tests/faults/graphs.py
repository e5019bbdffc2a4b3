"""Crafted files of an index, their hashes right: each is refused, or answers without harm.

What FAISS makes of a length, a link or a level that is none is a crash; so all is tried in a
process of its own.
"""

from __future__ import annotations

import resource
import struct
import tempfile
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from faults.kill import nursery

from kinshelf.db.catalog.statement import file_hash, read_state, seal, side_file
from kinshelf.store.search import hnsw

ROWS, WIDTH, ANCHOR = 2000, 16, "0-fuzz"
BATCH = 40
NUMBERS = (0, 1, -1, 2, 255, ROWS - 1, ROWS, ROWS + 1, 2**24, 2**31 - 1, -(2**31))
LENGTHS = (0, 1, ROWS - 1, ROWS + 1, 2**31, 2**40 - 1, 2**40, 2**63, 2**64 - 1)
STATED: tuple[Any, ...] = (None, True, -1, 0, 1, ROWS + 16, 2**40, 2**62, "x", [], {}, 1e308)


def make(folder: Path) -> Path:
    """A graph that every query is answered by."""
    rows = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)
    path = folder / "index-0.faiss"
    built = hnsw.grown(rows, None, path)
    assert built
    efforts = {name: hnsw.Effort(48, 0.99) for name in ("both", "image", "text")}
    graph = hnsw.Hnsw(built[0], hnsw.entry_points_of(rows), ROWS, built[1], ANCHOR, efforts, ROWS)
    hnsw.save(graph, path)
    return path


def craft(path: Path, random: Random) -> str:
    """Change the file or its statement, and make the hash right again."""
    data, state = bytearray(path.read_bytes()), read_state(path)
    assert state
    way = random.choice(["byte", "number", "number", "length", "size", "link", "state", "many"])
    # Half of it is links and lengths, the rest bytes of vectors, which harm nobody.
    at = random.randrange(0, len(data) - 8)
    if random.random() < 0.5:
        at = random.choice([random.randrange(250), random.randrange(9000, 9600), at])
    if way == "byte":
        data[at] ^= 1 << random.randrange(8)
    elif way == "number":
        struct.pack_into("<i", data, at, random.choice(NUMBERS))
    elif way == "length":
        places = [i for n in (7, 8, ROWS, ROWS + 1, 125, 126, WIDTH, 2 * WIDTH, ROWS * WIDTH)
                  for i in _all(data, struct.pack("<Q", n))]  # fmt: skip
        struct.pack_into("<Q", data, random.choice(places), random.choice(LENGTHS))
    elif way == "size":
        data = data[:at] if random.random() < 0.6 else data + bytes(random.choice([1, 4096]))
    elif way == "link":
        begin = data.index(struct.pack("<Q", ROWS + 1)) + 8 + 8 * (ROWS + 1) + 8
        struct.pack_into("<i", data, begin + 4 * random.randrange(48 * ROWS), random.randrange(
            -2, ROWS + 2))  # fmt: skip
    elif way == "many":
        for _ in range(50):
            struct.pack_into("<i", data, random.randrange(len(data) - 4), random.choice(NUMBERS))
    else:
        name = random.choice(sorted(set(state) - {"xxh3", "anchor", "kind"}))
        odd = random.choice(STATED)
        state[name] = {"both": [odd, 1.0]} if name == "efforts" and random.random() < 0.5 else odd
    path.write_bytes(data)
    state["xxh3"] = file_hash(path)
    side_file(path).write_bytes(seal(state))
    return way


def _all(data: bytearray, what: bytes) -> list[int]:
    found, at = [], data.find(what)
    while at >= 0:
        found.append(at)
        at = data.find(what, at + 1)
    return found


def ask(path: Path) -> str:
    """Load the graph and query it: refused or answered."""
    graph = hnsw.load(path, ANCHOR, WIDTH)
    if graph is None or not graph.helps:
        return "refused"
    queries = np.random.default_rng(1).standard_normal((20, WIDTH)).astype(np.float32)
    for kind, effort in graph.efforts.items():
        if effort.steps is not None and kind in ("both", "image", "text"):
            places = graph.candidates(queries, 10, effort.steps, kind)
            assert places.min() >= -1
            assert places.max() < ROWS
    graph.scored(queries[:1], 10, None)
    return "answered"


def batch(base: bytes, side: bytes, seed: str, numbers: range, pipe: Connection) -> None:
    """In a process of its own, with little memory: craft, ask, report."""
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index-0.faiss"
        for number in numbers:
            path.write_bytes(base)
            side_file(path).write_bytes(side)
            pipe.send(f"{number}: {craft(path, Random(f'{seed}/{number}'))}")
            try:
                pipe.send(ask(path))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                pipe.send(f"{type(error).__name__}: {error}")
    pipe.send(None)


def run(directory: Path, seed: str, cases: int) -> Counter[str]:
    """Try so many files. Raises AssertionError for a crash, a raw error or a place that is none."""
    path, context = make(directory), nursery()
    assert ask(path) == "answered"
    base, side = path.read_bytes(), side_file(path).read_bytes()
    outcomes, bad = Counter[str](), []
    for start in range(0, cases, BATCH):
        ours, theirs = context.Pipe(duplex=False)
        numbers = range(start, min(cases, start + BATCH))
        child = context.Process(target=batch, args=(base, side, seed, numbers, theirs))
        child.start()
        theirs.close()
        what = "starting"
        try:
            while (what := ours.recv()) is not None:
                outcome = ours.recv()
                outcomes[outcome if outcome in ("refused", "answered") else "BAD"] += 1
                if outcome not in ("refused", "answered"):
                    bad.append(f"{what}: {outcome}")
        except EOFError:
            bad.append(f"{what}: the process died")
        child.join()
    assert not bad, "\n".join(bad)
    return outcomes
