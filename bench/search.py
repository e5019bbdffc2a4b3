"""Search side by side with FAISS' own HNSW32, both in this run and on these vectors.

    python bench/search.py [--rows 100000] [--directory DIR] [--data blends clusters smooth]
                           [--source amazon2020 gaussian]

Vectors are made around the embeddings in ../shared/amazon2020 or around seeded Gaussian ones; each
run is headed by the name and digest of its data. Prints what the shelf takes and what FAISS takes.
Single queries are timed by the processor time of their one thread; the rest by the clock, so on a
busy machine trust the ratios alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import vectors
from vectors import BATCH, WIDTH, Kind

from kinshelf import Shelf
from kinshelf.db.product import Product
from kinshelf.store.search.exact import exact
from kinshelf.store.search.recall import recall_of

QUERIES = 200
GROUPS = 20

FIRST = """
import json, os, sys, time
started = time.perf_counter()
import numpy as np
from kinshelf import Shelf
imported = time.perf_counter() - started
query = np.load(sys.argv[2])
with Shelf.open(sys.argv[1]) as shelf:
    found = shelf.snapshot().kneighbors(query, 10)
    first = time.perf_counter() - started
    exhaustive = found.exhaustive
    for _ in range(200):
        shelf.snapshot().kneighbors(query, 10)
    def status(name):
        lines = open("/proc/self/status").read().splitlines()
        return next(int(l.split()[1]) for l in lines if l.startswith(name)) // 1024
    sizes = [status("RssAnon"), status("RssFile")]
    print(json.dumps([imported, first, exhaustive, *sizes]))
    sys.stdout.flush()
    os._exit(0)
"""


def add(shelf: Shelf, pairs: np.ndarray, first: int, group: np.ndarray) -> None:
    products = [
        Product(f"id{first + i}", f"product {first + i}", category=f"g{group[i]}",
                attributes={"u": float((first + i) * 7919 % 1000)})
        for i in range(len(pairs))
    ]  # fmt: skip
    shelf.upsert(products, np.array(pairs[:, 0]), np.array(pairs[:, 1]))


def near_group(pairs: np.ndarray, kind: Kind) -> np.ndarray:
    """Groups of products that lie together: the nearest of GROUPS directions."""
    directions = Kind("clusters", kind.source).vectors(GROUPS, 99).reshape(GROUPS, -1)
    flat = pairs.reshape(len(pairs), -1)
    parts = [np.argmax(flat[i : i + BATCH] @ directions.T, 1) for i in range(0, len(flat), BATCH)]
    return np.concatenate(parts)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def one_by_one(ask: Callable[[np.ndarray], Any], queries: np.ndarray) -> tuple[float, list[Any]]:
    """Milliseconds of one query, median, of this thread's own time: others do not count in it."""
    for query in queries[:5]:
        ask(query[None])
    times, answers = [], []
    for query in queries:
        started = time.thread_time()
        answers.append(ask(query[None]))
        times.append(time.thread_time() - started)
    return float(np.median(times)) * 1e3, answers


class Raw:
    """FAISS' IndexHNSWFlat, 32 links, tuned to recall@10 >= 0.99 on the queries themselves."""

    def __init__(self, flat: np.ndarray) -> None:
        import faiss

        self.faiss = faiss
        self.index = faiss.IndexHNSWFlat(flat.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        self.build = timed(lambda: self.index.add(flat))[0]

    def tune(self, queries: np.ndarray, truth: np.ndarray) -> None:
        self.faiss.omp_set_num_threads(1)
        for self.steps in (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024):
            self.index.hnsw.efSearch = self.steps
            self.recall = recall_of(self.index.search(queries, 10)[0], truth)
            if self.recall >= 0.99:
                break

    def search(self, queries: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.index.search(queries, 10)[0]
        return found


def line(name: str, ours: float, theirs: float | None, unit_: str, note: str = "") -> None:
    ratio = "" if theirs is None else f"  FAISS HNSW32 {theirs:9.3f}  ratio {ours / theirs:5.2f}"
    print(f"{name:34s} {ours:10.3f} {unit_:5s}{ratio}  {note}", flush=True)


def run(directory: Path, rows: int, kind: Kind) -> None:
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {rows:,} rows, {kind}")
    pairs = kind.vectors(rows, 0)
    flat = pairs.reshape(rows, -1)
    asked = kind.vectors(QUERIES, 1).reshape(QUERIES, -1)
    group = near_group(pairs, kind)
    asked_group = near_group(asked.reshape(QUERIES, 2, WIDTH), kind)
    truth = exact(flat, asked, 10)[0]
    raw = Raw(flat)
    raw.tune(asked, truth)
    path = directory / "bench.shelf"
    Shelf.create(path, encoder="supplied").close()
    shelf = Shelf.open(path)
    taken = timed(lambda: [add(shelf, pairs[i : i + BATCH], i, group[i : i + BATCH])
                           for i in range(0, rows, BATCH)])[0]  # fmt: skip
    before, _ = one_by_one(lambda q: shelf.snapshot().kneighbors(q, 10), asked[:40])
    line("add, all rows", taken, None, "s")
    line("query while there is no index", before, None, "ms")
    line("index build, tuning included", timed(shelf.build_index)[0], raw.build, "s")
    print(json.dumps(shelf.info()["index"]))
    _queries(shelf, raw, asked, truth, kind)
    _filters(shelf, flat, (asked, asked_group), group)
    _grow(shelf, rows, asked, kind)
    shelf.close()
    np.save(directory / "query.npy", asked[:1])
    _fresh(path, directory / "query.npy", raw)


def _queries(shelf: Shelf, raw: Raw, asked: np.ndarray, truth: np.ndarray, kind: Kind) -> None:
    now = shelf.snapshot()
    theirs, _ = one_by_one(raw.search, asked)
    raw.faiss.omp_set_num_threads(1)
    again, _ = one_by_one(raw.search, asked)
    ours, found = one_by_one(lambda q: now.kneighbors(q, 10), asked)
    theirs = (theirs + again) / 2
    recall = recall_of(2 * np.concatenate([f.similarities for f in found]), truth)
    line("query p50", ours, theirs, "ms",
         f"recall {recall:.4f}, FAISS {raw.recall:.4f} at efSearch {raw.steps}")  # fmt: skip
    for weight in (1.0, 0.0, 0.3):
        ours, found = one_by_one(lambda q, w=weight: now.kneighbors(q, 10, weight_image=w), asked)
        weights = np.repeat([weight, 1 - weight], WIDTH).astype(np.float32)
        right = exact(now.searched().vectors, asked * weights, 10)[0]
        recall = recall_of(np.concatenate([f.similarities for f in found]), right)
        line(f"query p50, weight of the image {weight}", ours, None, "ms",
             f"recall {recall:.4f}, exhaustive {found[0].exhaustive}")  # fmt: skip
    many = kind.vectors(1000, 2).reshape(1000, -1)
    raw.faiss.omp_set_num_threads(os.cpu_count() or 1)
    line("batch of 1,000, queries a second", 1000 / timed(lambda: now.kneighbors(many, 10))[0],
         1000 / timed(lambda: raw.search(many))[0], "/s")  # fmt: skip


def _filters(
    shelf: Shelf, flat: np.ndarray, asked: tuple[np.ndarray, np.ndarray], group: np.ndarray
) -> None:
    """By a number that has nothing to do with the query, by its own group, by all but that."""
    now = shelf.snapshot()
    numbers = np.arange(len(flat)) * 7919 % 1000
    filters: dict[str, Callable[[int], tuple[str, np.ndarray]]] = {
        f"{share} % at random": lambda _g, s=share: (f"u < {10 * s}", numbers < 10 * s)
        for share in (1, 10, 50, 90)
    }
    filters["its own group"] = lambda g: (f"category = 'g{g}'", group == g)
    filters["another group"] = lambda g: (f"category = 'g{(g + 7) % GROUPS}'",
                                          group == (g + 7) % GROUPS)  # fmt: skip
    filters["its own half"] = lambda g: _half(group, [(g + i) % GROUPS for i in range(10)])
    filters["the other half"] = lambda g: _half(group, [(g + 5 + i) % GROUPS for i in range(10)])
    for name, make in filters.items():
        times, recalls, kept, whole = [], [], [], []
        for query, own in list(zip(*asked, strict=True))[:60]:
            where, keep = make(int(own))
            if not keep.any():
                continue
            now.kneighbors(query[None], 1, where=where)  # DuckDB has resolved it
            seconds, found = timed(lambda q=query, w=where: now.kneighbors(q[None], 10, where=w))
            right = exact(flat, query[None], 10, keep)[0]
            recalls.append(recall_of(2 * found.similarities, right))
            times.append(seconds * 1e3)
            kept.append(keep.mean())
            whole.append(found.exhaustive)
        line(f"filter: {name}", float(np.median(times)), None, "ms",
             f"recall {np.mean(recalls):.4f}, worst {np.min(recalls):.2f}, kept"
             f" {100 * np.mean(kept):.0f} %, exact {100 * np.mean(whole):.0f} %")  # fmt: skip


def _half(group: np.ndarray, chosen: list[int]) -> tuple[str, np.ndarray]:
    names = ", ".join(f"'g{g}'" for g in chosen)
    return f"category IN ({names})", np.isin(group, chosen)


def _grow(shelf: Shelf, rows: int, asked: np.ndarray, kind: Kind) -> None:
    before, _ = one_by_one(lambda q: shelf.snapshot().kneighbors(q, 10), asked)
    for i in range(3):
        more = kind.vectors(1000, 10 + i)
        first = rows + 1000 * i
        seconds, _ = timed(lambda f=first, m=more: add(shelf, m, f, np.zeros(1000, dtype=int)))
        searched, found = timed(lambda m=more: shelf.snapshot().kneighbors(m[:1].reshape(1, -1), 1))
        got = shelf.snapshot().view.by_rows(found.rows[0])[int(found.rows[0, 0])].product.id
        note = f"first query after it {searched * 1e3:.1f} ms, finds {got == f'id{first}'}"
        line("add 1,000, durable", seconds * 1e3, None, "ms", note)
    after, _ = one_by_one(lambda q: shelf.snapshot().kneighbors(q, 10), asked)
    line("query p50 after 3 x 1,000 more", after, None, "ms", f"{after / before:.2f} x before")


def _fresh(path: Path, query: Path, raw: Raw) -> None:
    file = path.parent / "raw.faiss"
    raw.faiss.write_index(raw.index, str(file))
    theirs = min(timed(lambda: raw.faiss.read_index(str(file)))[0] for _ in range(2))
    command = [sys.executable, "-c", FIRST, str(path), str(query)]
    best = min(
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)[1:]
        for _ in range(3)
    )
    first, exhaustive, private, mapped = best
    line("fresh process to first answer", first, None, "s",
         f"exhaustive {exhaustive}; FAISS reads its file in {theirs:.2f} s")  # fmt: skip
    line("resident, private", private, None, "MB", f"and {mapped} MB of mapped files")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--directory", type=Path)
    vectors.add_options(parser)
    options = parser.parse_args()
    for kind in vectors.kinds(options):
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            run(Path(directory), options.rows, kind)


if __name__ == "__main__":
    main()
