"""A shelf in a directory and on engines, side by side: adding, searching, filters, recall.

    python bench/serving.py [ROWS]

Starts PostgreSQL with pgvector and Milvus Lite on loopback, as the tests do. Vectors are made up:
20 categories, 1024 numbers a product. `rare` is 1 % of the products, all of another category than
the queries. Every figure is also given as a ratio to that of the directory.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from engines import KINDS, running

from kinshelf import create as create_shelf
from kinshelf.db.product import Product
from kinshelf.db.threads import announce

DIMENSION, GROUPS, QUERIES, BATCH = 512, 20, 40, 2000


def made(rows: int) -> tuple[list[Product], np.ndarray]:
    rng = np.random.default_rng(0)
    group = np.arange(rows) % GROUPS
    centres = rng.standard_normal((GROUPS, 2, DIMENSION), dtype=np.float32)
    pairs = centres[group] + rng.standard_normal((rows, 2, DIMENSION), dtype=np.float32)
    pairs /= np.linalg.norm(pairs, axis=2, keepdims=True)
    products = [
        Product(f"p{i}", title=f"thing {i}", category=f"g{group[i]}", price=float(i % 100),
                attributes={"rare": bool(group[i] == 0 and i % 100 < 20)})
        for i in range(rows)
    ]  # fmt: skip
    return products, pairs.reshape(rows, -1)


def recall(found: Any, scores: np.ndarray, keep: np.ndarray) -> float:
    last = -np.sort(-np.where(keep, scores, -np.inf), axis=1)[:, 9:10]
    return float((found >= last - 1e-6).mean())


def measure(kind: str, products: list[Product], pairs: np.ndarray) -> dict[str, float]:
    figures = {}
    image, text = np.split(pairs, 2, axis=1)
    with running(kind) as engine, create_shelf(engine.address("bench"), encoder="fake") as shelf:
        started = time.perf_counter()
        for at in range(0, len(products), BATCH):
            part = slice(at, at + BATCH)
            shelf.upsert(products[part], image[part], text[part])
        figures["add s"] = time.perf_counter() - started
        started = time.perf_counter()
        shelf.build_index()
        figures["index s"] = time.perf_counter() - started
        queries = pairs[3 : 3 + QUERIES * GROUPS : GROUPS]
        scores = queries @ pairs.T / 2
        rare = np.array([bool(p.attributes["rare"]) for p in products])
        group = np.array([p.category == "g1" for p in products])
        everything = np.ones(len(products), dtype=bool)
        for name, where, keep in (
            ("query", None, everything), ("category", "category = 'g1'", group),
            ("rare", "rare", rare),
        ):  # fmt: skip
            shelf.search(queries[:1], 10, where=where)
            times, found = [], []
            for query in queries:
                started = time.perf_counter()
                found.append(shelf.search(query[None], 10, where=where).similarities)
                times.append(time.perf_counter() - started)
            figures[f"{name} ms"] = float(np.median(times)) * 1e3
            figures[f"{name} recall"] = recall(np.concatenate(found), scores, keep)
    return figures


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    os.environ.setdefault("XDG_CACHE_HOME", "/tmp/kinshelf-bench-cache")
    print(f"{rows} products x {2 * DIMENSION}, {os.cpu_count()} cores, {platform.processor()}")
    products, pairs = made(rows)
    base: dict[str, float] = {}
    for kind in KINDS:
        figures = measure(kind, products, pairs)
        base = base or figures
        for name, value in figures.items():
            ratio = f"  {value / base[name]:8.2f} x" if base[name] and "recall" not in name else ""
            print(f"{kind:10} {name:16} {value:10.4g}{ratio}", flush=True)


if __name__ == "__main__":
    announce()
    main()
