"""What the store costs, without encoding, as multiples of the disk's own append and fsync.

    python bench/store_cost.py [--rows 100000] [--adds 2000] [--directory DIR]

Prints one line a figure: measured, limit, whether it holds. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kinshelf import Shelf
from kinshelf.db.product import Product

DIMENSION = 512
VECTOR = 8 * DIMENSION

OPENING = """
import json, os, sys, time
import numpy as np
import duckdb, kinshelf.store.snapshot, kinshelf.db.catalog.queries
from kinshelf import Shelf
started = time.perf_counter()
with Shelf.open(sys.argv[1]) as shelf:
    opened = time.perf_counter() - started
    now = shelf.snapshot()
    query = now.pairs([int(now.view.rows()[7])])
    found = now.kneighbors(query, 10)
    named = now.view.by_rows(found.rows[0])
    first = time.perf_counter() - started
    resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    answer = [named[int(r)].product.id for r in found.rows[0]]
    started = time.perf_counter()
    now.kneighbors(query, 10)
    print(json.dumps([opened, first, resident, answer, time.perf_counter() - started]))
    os._exit(0)
"""


def appends(directory: Path, size: int, count: int) -> float:
    """Seconds that the disk takes to append `size` bytes and sync them, 95th percentile."""
    fd = os.open(directory / "append", os.O_RDWR | os.O_CREAT, 0o644)
    data, times = os.urandom(size), []
    for i in range(count):
        started = time.perf_counter()
        os.pwrite(fd, data, i * size)
        os.fdatasync(fd)
        times.append(time.perf_counter() - started)
    os.close(fd)
    (directory / "append").unlink()
    return float(np.percentile(times, 95))


def batch(first: int, count: int) -> tuple[list[Product], np.ndarray, np.ndarray]:
    """Products with random unit embeddings."""
    random = np.random.default_rng(first)
    products = [
        Product(f"id{i:07d}", f"product number {i}", "a few words about it", f"c{i % 40}", i / 7)
        for i in range(first, first + count)
    ]
    pairs = random.standard_normal((2, count, DIMENSION), dtype=np.float32)
    image, text = pairs / np.linalg.norm(pairs, axis=2, keepdims=True)
    return products, image, text


def fill(path: Path, rows: int) -> None:
    """A shelf of so many rows."""
    Shelf.create(path, encoder="supplied").close()
    with Shelf.open(path) as shelf:
        for first in range(0, rows, 4096):
            shelf.upsert(*batch(first, min(4096, rows - first)))


def adds(path: Path, first: int, count: int) -> np.ndarray:
    """Seconds of each of `count` durable adds of one product; the first, which loads, left out."""
    times = []
    with Shelf.open(path) as shelf:
        for i in range(count + 1):
            one = batch(first + i, 1)
            started = time.perf_counter()
            shelf.upsert(*one)
            times.append(time.perf_counter() - started)
    return np.array(times[1:])


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def opening(path: Path) -> tuple[float, float, int, list[str], float]:
    """Of a fresh process: seconds to open, to the first answer, bytes resident, the answer."""
    line = [sys.executable, "-c", OPENING, str(path)]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    opened, first, resident, answer, second = json.loads(done.stdout)
    return opened, first, resident, answer, second


def report(name: str, value: float, limit: float, unit: str) -> bool:
    held = value <= limit
    print(
        f"{'ok  ' if held else 'MISS'} {name}: {value:.2f} {unit} (limit {limit:.2f})", flush=True
    )
    return held


def run(directory: Path, rows: int, count: int) -> None:
    small, large = directory / "small.shelf", directory / "large.shelf"
    fill(small, 1000)
    print(f"fill {rows}: {timed(lambda: fill(large, rows)):.1f} s")
    sync = appends(directory, VECTOR, 200) * 1e3
    sync_thousand = appends(directory, VECTOR * 1000, 10) * 1e3
    print(f"disk: append and fsync of 4 KB {sync:.2f} ms, of 4 MB {sync_thousand:.1f} ms (p95)")
    at_small, at_large = adds(small, 1_000_000, count) * 1e3, adds(large, 2_000_000, count) * 1e3
    for name, times in (("1,000", at_small), (f"{rows:,}", at_large)):
        p50, p95 = np.percentile(times, [50, 95])
        print(f"add of one at {name} rows: p50 {p50:.2f}, p95 {p95:.2f}, max {times.max():.1f} ms")
    report("add of one, p95", float(np.percentile(at_large, 95)), 2 * sync + 5, "ms")
    report("stall in the adds", float(at_large.max()), 250, "ms")
    report("growth of the median", float(np.median(at_large) / np.median(at_small)), 1.5, "x")
    with Shelf.open(large) as shelf:
        shelf.upsert(*batch(3_000_000, 1))
        thousand = [timed(lambda n=n: shelf.upsert(*n)) * 1e3 for n in
                    (batch(3_100_000 + i * 1000, 1000) for i in range(5))]  # fmt: skip
    report("add of 1,000", float(np.median(thousand)), 50 + 2 * sync_thousand, "ms")
    _openings(large, (rows + count + 5002) * VECTOR)


def _openings(path: Path, size: int) -> None:
    opened, first, resident, answer, second = min(opening(path) for _ in range(3))
    print(f"open {opened:.2f} s, next query {second * 1e3:.0f} ms")
    report("open to first answer", first, 1.5, "s")
    report("resident memory", resident / size, 1.3, "x the vectors")
    for file in [*path.glob("catalog.duckdb*"), *path.glob("index-*")]:
        file.unlink()
    _, rebuilt, _, again, _ = opening(path)
    report("open to first answer, catalogue and index deleted", rebuilt, 3, "s")
    print("identical answers" if again == answer else "DIFFERENT ANSWERS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--adds", type=int, default=2000)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(dir=options.directory))
    try:
        run(directory, options.rows, options.adds)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
