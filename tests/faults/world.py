"""Random changes to a shelf, and a plain dictionary that states what must be there after them.

A product's title and vectors follow from its id and version alone, so an answer that mixes two
states, or a row that came from nowhere, shows. The same seed gives the same changes.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np

from kinshelf import Shelf
from kinshelf.db.product import Product
from kinshelf.store.maintain.verify import verify
from kinshelf.store.probes import find_probe, list_probes, save_probe

DIMENSION = 8
IDS = [f"p{i:02d}" for i in range(40)]


@dataclass
class Model:
    """What the shelf must hold: the version of each id, and how many probes."""

    versions: dict[str, int] = field(default_factory=dict)
    probes: int = 0

    def copy(self) -> Model:
        return Model(dict(self.versions), self.probes)


@dataclass(frozen=True)
class Change:
    """`kind` is upsert, remove, train or compact; `versions` the ids concerned."""

    kind: str
    versions: dict[str, int] = field(default_factory=dict)


def plan(seed: str, number: int, model: Model) -> Change:
    """Change number `number` of a run; versions are numbers of changes, hence never repeated."""
    random = Random(f"{seed}/{number}")
    kind = random.choices(["upsert", "remove", "train", "compact"], [10, 4, 1, 1])[0]
    if kind == "remove" and model.versions:
        known = sorted(model.versions)
        return Change("remove", dict.fromkeys(random.sample(known, min(3, len(known))), 0))
    if kind in ("train", "compact"):
        return Change(kind)
    chosen = random.sample(IDS, random.choice([1, 1, 2, 5]))
    return Change("upsert", dict.fromkeys(chosen, number))


def step(model: Model, change: Change) -> Model:
    """The model after a change."""
    after = model.copy()
    if change.kind == "upsert":
        after.versions |= change.versions
    for name in change.versions if change.kind == "remove" else ():
        del after.versions[name]
    after.probes += change.kind == "train"
    return after


def apply(shelf: Shelf, change: Change) -> None:
    """Make a change; returning from here is the acknowledgement."""
    if change.kind == "upsert":
        products = [product(*item) for item in change.versions.items()]
        image, text = np.split(np.stack([pairs(*i) for i in change.versions.items()]), 2, axis=1)
        shelf.upsert(products, image, text)
    elif change.kind == "remove":
        shelf.remove(list(change.versions))
    elif change.kind == "train":
        save_probe(shelf, write_probe, trained_on=1, classes=2, metrics={})
    else:
        shelf.compact()


def write_probe(directory: Path) -> None:
    (directory / "probe.bin").write_bytes(b"weights" * 50)
    (directory / "probe.json").write_text('{"classes": 2}\n')


def product(name: str, version: int) -> Product:
    return Product(
        name,
        f"{name} version {version}",
        category=f"c{version % 3}",
        price=float(version),
        attributes={"colour": ["red", "blue"][version % 2]},
    )


def pairs(name: str, version: int) -> np.ndarray:
    """Unit image and text embeddings, (2 * DIMENSION,) float32."""
    seed = int.from_bytes(hashlib.sha256(f"{name}/{version}".encode()).digest()[:8], "little")
    rows = np.random.default_rng(seed).standard_normal((2, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32).reshape(-1)


def holds(shelf: Shelf, model: Model) -> str:
    """Why the shelf is not the model; empty if it is: catalogue, vectors, index and probes."""
    now = shelf.snapshot()
    stored = now.select()
    found = {p.product.id: p.product for p in stored}
    expected = {name: product(name, version) for name, version in model.versions.items()}
    if found != expected or len(stored) != len(found) or now.count != len(found):
        return f"products {sorted(found)} ({now.count}), expected {sorted(expected)}"
    if len(list_probes(shelf, now)) != model.probes:
        return f"{len(list_probes(shelf, now))} probes, expected {model.probes}"
    if model.probes:
        find_probe(shelf, now)
    if not stored:
        return ""
    truth = np.stack([pairs(name, model.versions[name]) for name in found])
    if not np.allclose(now.pairs([p.row for p in stored]), truth, atol=1e-6):
        return "vectors do not belong to their products"
    return _searched(shelf, [p.row for p in stored], truth)


def _searched(shelf: Shelf, rows: list[int], truth: np.ndarray) -> str:
    answer = shelf.snapshot().kneighbors(truth, 3)
    scores = truth.astype(np.float64) @ truth.T.astype(np.float64) / 2
    best = np.argsort(-scores, axis=1, kind="stable")[:, : answer.rows.shape[1]]
    if not np.array_equal(np.asarray(rows)[best], answer.rows):
        return "the index answers differently from exact search"
    expected = np.take_along_axis(scores, best, axis=1)
    return "" if np.allclose(answer.similarities, expected, atol=1e-5) else "wrong similarities"


def findings(shelf: Shelf) -> list[str]:
    """What `verify` finds, harmless notes left out."""
    return [str(f) for f in verify(shelf) if not getattr(f, "harmless", False)]


@dataclass
class Opened:
    """A shelf that was opened again: which of the allowed models it holds, and how long it took."""

    model: Model
    seconds: float


def reopen(path: Path, allowed: list[Model], *, verified: bool = True) -> Opened:
    """Open the shelf and say which model it holds. Raises AssertionError if it is none of them."""
    started = time.perf_counter()
    with Shelf.open(path) as shelf:
        shelf.snapshot()
        seconds = time.perf_counter() - started
        problems = [holds(shelf, model) for model in allowed]
        assert "" in problems, f"{path}: {problems}"
        found = findings(shelf) if verified else []
        assert not found, found
        return Opened(allowed[problems.index("")], seconds)


def new_shelf(path: Path, seed: str, changes: int) -> Model:
    """A shelf after a number of random changes."""
    Shelf.create(path, encoder="supplied").close()
    model = Model()
    with Shelf.open(path) as shelf:
        for number in range(changes):
            change = plan(seed, number, model)
            apply(shelf, change)
            model = step(model, change)
    return model
