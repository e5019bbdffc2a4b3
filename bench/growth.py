"""What grows with the shelf, from ten thousand to a million products, and what does not.

    python bench/growth.py [--rows 10000 100000 1000000] [--directory DIR] | tee growth.txt

To be run by hand: a million rows are 4 GB of vectors and some minutes of index. Vectors are blends
of bench/vectors.py, which the head of the output names; every question is asked in a fresh process,
so that memory is its own; opening in five of them, of which the middle one counts and the slowest
is reported.
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
from pathlib import Path
from typing import Any

import numpy as np
import search
from vectors import Kind

from kinshelf import Shelf

KIND = Kind("blends", "amazon2020")
STEP = 16_384
QUERIES = 200

OPEN = """
import sys, time
started = time.perf_counter()
import numpy as np
from kinshelf import Shelf
Shelf.open(sys.argv[1]).snapshot().kneighbors(np.load(sys.argv[2])[:1], 10)
print(time.perf_counter() - started)
"""

ASK = """
import json, os, sys, time
import numpy as np
import xxhash
from kinshelf.db.product import Product
from kinshelf import Shelf
from kinshelf.store.log.checksums import check_vectors
from kinshelf.store.log.layout import vectors_path
queries, more = np.load(sys.argv[2]), np.load(sys.argv[3])
shelf = Shelf.open(sys.argv[1])
shelf.snapshot().kneighbors(queries[:1], 10)
figures = {}
# What opening reads whole, for its checksums, as it does: the index, mapped, and the vectors.
ledger, begun = shelf._ledger, time.perf_counter()
for file in os.listdir(sys.argv[1]):
    path = os.path.join(sys.argv[1], file)
    if file.startswith("index-") and os.path.getsize(path) > 1 << 20:
        xxhash.xxh3_128_hexdigest(np.memmap(path, np.uint8, "r").data)
check_vectors(vectors_path(ledger.directory, 0), ledger.first_row, ledger.heads)
figures["of it checksums, s"] = time.perf_counter() - begun
def middle(**options):
    times = []
    for query in queries:
        begun = time.perf_counter()
        shelf.snapshot().kneighbors(query[None], 10, **options)
        times.append(time.perf_counter() - begun)
    return float(np.median(times)) * 1e3
def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith(name)) / 1024
middle()
figures["query p50, ms"] = middle()
figures["filter of 1 %, p50, ms"] = middle(where="u < 10")
figures["filter of 10 %, p50, ms"] = middle(where="u < 100")
found = shelf.snapshot().kneighbors(queries, 10)
np.save(sys.argv[4], found.similarities)
begun = time.perf_counter()
shelf.snapshot().kneighbors(np.repeat(queries, 5, axis=0), 10)
figures["batch of 1,000, queries/s"] = 1000 / (time.perf_counter() - begun)
figures["resident, MB"] = status("VmRSS")
figures["of it private, MB"] = status("RssAnon")
for part in range(7):
    rows = more[1000 * part : 1000 * part + 1000]
    products = [Product(f"new{part}-{i}", "new", attributes={"u": 1.0}) for i in range(1000)]
    begun = time.perf_counter()
    shelf.upsert(products, rows[:, 0].copy(), rows[:, 1].copy())
    figures.setdefault("add of 1,000, ms", []).append((time.perf_counter() - begun) * 1e3)
figures["first add of a handle, ms"] = figures["add of 1,000, ms"][0]
figures["add of 1,000, ms"] = float(np.median(figures["add of 1,000, ms"][1:]))
begun = time.perf_counter()
shelf.remove([f"new0-{i}" for i in range(100)])
figures["remove 100, ms"] = (time.perf_counter() - begun) * 1e3
print(json.dumps(figures), flush=True)
os._exit(0)
"""


def fill(path: Path, rows: int, seed: int) -> tuple[float, float]:
    """Seconds of adding, and of building the index."""
    Shelf.create(path, encoder="supplied").close()
    shelf = Shelf.open(path)
    seconds = 0.0
    for start in range(0, rows, STEP):
        count = min(STEP, rows - start)
        pairs = KIND.vectors(count, seed + start)
        begun = time.perf_counter()
        search.add(shelf, pairs, start, np.zeros(count, dtype=int))
        seconds += time.perf_counter() - begun
    begun = time.perf_counter()
    shelf.close()
    return seconds, time.perf_counter() - begun


def truth(path: Path, queries: np.ndarray) -> np.ndarray:
    """The ten highest similarities of each query, by NumPy over the mapped vectors."""
    rows = np.memmap(next(path.glob("vectors-*.f32")), np.float32, "r").reshape(-1, 1024)
    best = np.full((len(queries), 10), -np.inf, dtype=np.float32)
    for start in range(0, len(rows), STEP):
        scores = queries @ rows[start : start + STEP].T / 2
        best = np.sort(np.hstack([best, scores]), axis=1)[:, -10:]
    return best


def printed(program: str, *arguments: Path) -> str:
    """What a fresh process prints."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def asked(path: Path, folder: Path) -> dict[str, Any]:
    queries = KIND.vectors(QUERIES, 1).reshape(QUERIES, -1)
    files = [folder / name for name in ("queries.npy", "more.npy", "found.npy")]
    np.save(files[0], queries)
    np.save(files[1], KIND.vectors(7000, 2))
    expected = truth(path, queries)
    times = [float(printed(OPEN, path, *files)) for _ in range(5)]
    figures: dict[str, Any] = {
        "open + first, s": float(np.median(times)),
        "the slowest, s": max(times),
    }
    figures |= json.loads(printed(ASK, path, *files))
    found = np.load(files[2])
    hits = (found >= expected[:, :1] - 1e-5).sum(axis=1).clip(max=10)
    return figures | {"recall@10": float(hits.mean() / 10)}


def run(rows: int, directory: Path | None) -> dict[str, Any]:
    if directory:
        directory.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=directory))
    try:
        path = folder / "growth.shelf"
        added, built = fill(path, rows, 1000)
        figures = {"ingest, rows/s": rows / added, "close (index built), s": built}
        return figures | asked(path, folder)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; 1024 wide, {KIND}")
    figures = {}
    for rows in options.rows:
        figures[rows] = run(rows, options.directory)
        print(f"{rows:,} rows: {json.dumps({k: round(v, 3) for k, v in figures[rows].items()})}",
              flush=True)  # fmt: skip
    first, last = figures[options.rows[0]], figures[options.rows[-1]]
    print(f"\n{'':28s}" + "".join(f"{rows:>14,}" for rows in options.rows) + "        grows")
    for name in first:
        row = "".join(f"{figures[rows][name]:14.3f}" for rows in options.rows)
        print(f"{name:28s}{row}{last[name] / first[name]:12.2f} x")


if __name__ == "__main__":
    main()
