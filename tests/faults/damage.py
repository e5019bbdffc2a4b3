"""Damage at random places of every file: answers stay the same, or the damage is named."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from faults.kill import nursery
from faults.world import findings, new_shelf, pairs

from kinshelf import Shelf
from kinshelf.db.errors import KinshelfError
from kinshelf.store.probes import find_probe, list_probes

KINDS = ("flip", "truncate", "zero")
BATCH = 30


def make(directory: Path, seed: str) -> Path:
    """A shelf with every kind of file in it."""
    path = directory / "whole.shelf"
    model = new_shelf(path, seed, 60)
    assert model.versions
    with Shelf.open(path) as shelf:
        from faults.world import Change, apply

        for change in (Change("train"), Change("upsert", dict.fromkeys(["p00", "p01"], 700))):
            apply(shelf, change)
    from kinshelf.db.images.cache import ImageCache

    cache: Any = ImageCache(path / "images")
    cache.put("https://images.example/a.png", _png())
    return path


def _png() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 30, 30)).save(buffer, "png")
    return buffer.getvalue()


def damage(path: Path, random: Random) -> str:
    """Damage one file of the shelf; returns which, where and how."""
    found = sorted(f for f in path.rglob("*") if f.is_file() and f.stat().st_size)
    file, kind = random.choice(found), random.choice(KINDS)
    data = bytearray(file.read_bytes())
    at = random.randrange(len(data))
    if kind == "flip":
        data[at] ^= 1 << random.randrange(8)
    elif kind == "truncate":
        del data[at:]
    else:
        size = random.choice([1, 16, 512, 4096])
        data[at : at + size] = bytes(len(data[at : at + size]))
    changed = bytes(data) != file.read_bytes()
    file.write_bytes(data)
    return f"{kind} {file.relative_to(path)} at {at}" if changed else ""


def answers(shelf: Shelf) -> list[Any]:
    """What a user may ask: products, vectors, neighbours with and without a filter, probes."""
    now = shelf.snapshot()
    stored = now.select()
    queries = np.stack([pairs(f"query{i}", i) for i in range(4)])
    found = [now.kneighbors(queries, 5), now.kneighbors(queries, 5, where="colour = 'red'")]
    ids = {p.row: p.product.id for p in stored}
    return [
        [(p.product, p.row, p.content_hash) for p in stored],
        now.pairs([p.row for p in stored]).tolist(),
        [[[ids.get(int(r)) for r in row] for row in f.rows] for f in found],
        [np.round(f.similarities, 5).tolist() for f in found],
        [p.files for p in list_probes(shelf, now)],
    ]


def judge(path: Path, truth: list[Any]) -> str:
    """`named`, `healed` (same answers, a finding), `harmless` (same, none) or what went wrong."""
    try:
        with Shelf.open(path) as shelf:
            same = answers(shelf) == truth
            try:
                find_probe(shelf, shelf.snapshot())
            except KinshelfError:
                return "named" if same else "WRONG ANSWER"
            if not same:
                return "WRONG ANSWER"
            return "healed" if findings(shelf) else "harmless"
    except KinshelfError:
        return "named"


def batch(base: Path, seed: str, numbers: range, pipe: Connection) -> None:
    """In a process of its own: damage, ask, report; one message before and one after each."""
    with Shelf.open(base) as shelf:
        truth = answers(shelf)
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "case.shelf"
            shutil.copytree(base, copy)
            what = damage(copy, Random(f"{seed}/{number}"))
            pipe.send(what)
            try:
                pipe.send(judge(copy, truth) if what else "harmless")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                pipe.send(f"{type(error).__name__}: {error}")
    pipe.send(None)


def run(directory: Path, seed: str, cases: int) -> Counter[str]:
    """Damage so many times. Raises AssertionError for a wrong answer, a crash or a raw error."""
    base, context = make(directory, seed), nursery()
    outcomes, bad = Counter[str](), []
    for start in range(0, cases, BATCH):
        ours, theirs = context.Pipe(duplex=False)
        numbers = range(start, min(cases, start + BATCH))
        child = context.Process(target=batch, args=(base, seed, numbers, theirs))
        child.start()
        theirs.close()
        what = "starting"
        try:
            while (what := ours.recv()) is not None:
                outcome = ours.recv()
                outcomes[outcome if outcome in ("named", "healed", "harmless") else "BAD"] += 1
                if outcome not in ("named", "healed", "harmless"):
                    bad.append(f"{what}: {outcome}")
        except EOFError:
            bad.append(f"{what}: the process died")
        child.join()
    assert not bad, "\n".join(bad)
    return outcomes
