"""One phase of one peer, in a process of its own.

    python bench/peers_child.py PEER PHASE WORK STORE [SETTING]

`fill` makes the store, `first` opens it and answers once, `ask` measures everything else.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from peers_base import Filter, Peer, Rows, Unsupported
from peers_list import PEERS
from peers_work import MANY, K, Work

RECALL, ENOUGH = 0.99, 0.999
SECONDS = {"tune": 8.0, "query": 8.0, "filter": 5.0, "sweep": 3.0, "batch": 15.0}
"""Of a figure at most: slow peers answer fewer queries, five at least."""
LEAST = 5


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds by the clock, and the result."""
    started = time.perf_counter()
    result = work()
    return (time.perf_counter() - started) * 1e3, result


def while_time(items: Iterable[Any], seconds: float) -> Iterable[Any]:
    """The items until the time is up."""
    end = time.perf_counter() + seconds
    for number, item in enumerate(items):
        if number >= LEAST and time.perf_counter() > end:
            return
        yield item


def recall(found: list[list[int]], truth: list[list[int]]) -> float:
    """The share of the right answers that were found, mean over queries that have any."""
    pairs = [(f, t) for f, t in zip(found, truth, strict=False) if t]
    return float(np.mean([len(set(f) & set(t)) / len(t) for f, t in pairs]))


def fill(peer: Peer, work: Work) -> dict[str, Any]:
    """Bulk ingest from columns in memory, then the index."""
    rows = work.rows()
    peer.create(rows.vectors.shape[1])
    ingest = timed(lambda: peer.fill(rows))[0] / 1e3
    index = timed(lambda: (peer.build(), peer.close()))[0] / 1e3
    return {
        "ingest_s": ingest, "index_s": index, "ingest_rows_s": len(rows) / ingest,
        "built_rows_s": len(rows) / (ingest + index), "disk_mb": peer.size() / 1e6,
    }  # fmt: skip


def first(peer: Peer, work: Work, setting: dict[str, Any]) -> dict[str, Any]:
    """Open and answer; who started this process takes the time."""
    query = work.array("queries")[0]
    peer.open()
    peer.use(setting)
    return {"found": peer.search(query, K)}


def ask(peer: Peer, work: Work) -> dict[str, Any]:
    """Queries, filters, a batch, memory, then adds and deletes."""
    queries = work.array("queries")
    peer.open()
    figures = tuned(peer, queries, work.plan["plain"])
    figures |= {"curve": curve(peer, queries, work.plan["plain"])}
    peer.use(figures["setting"])
    figures |= filtered(peer, queries, work.plan["cases"])
    figures |= batched(peer, work, figures)
    peer.use(figures["setting"])
    figures |= memory()
    figures |= grown(peer, work.more(), figures["query_ms"], queries)
    figures |= shrunk(peer, np.load(work.directory / "vectors.npy", mmap_mode="r"))
    peer.close()
    return figures


def tuned(peer: Peer, queries: Any, truth: list[list[int]]) -> dict[str, Any]:
    """The first setting that finds enough, and its time."""
    for setting in peer.settings:
        peer.use(setting)
        found = [peer.search(q, K) for q in while_time(queries, SECONDS["tune"])]
        reached = recall(found, truth)
        if reached >= RECALL:
            break
    times = [timed(lambda q=q: peer.search(q, K))[0] for q in while_time(queries, SECONDS["query"])]
    return {
        "setting": setting, "recall": reached, "query_ms": float(np.median(times)),
        "query_p95_ms": float(np.percentile(times, 95)), "queries": len(times),
    }  # fmt: skip


def curve(peer: Peer, queries: Any, truth: list[list[int]]) -> list[tuple[float, float]]:
    """Recall and median milliseconds at each setting, up to nearly all that is to be found."""
    points: list[tuple[float, float]] = []
    for setting in peer.curve or peer.settings:
        peer.use(setting)
        answers = [
            timed(lambda q=q: peer.search(q, K)) for q in while_time(queries, SECONDS["tune"])
        ]
        reached = recall([found for _, found in answers], truth)
        points.append((reached, float(np.median([taken for taken, _ in answers]))))
        if reached >= ENOUGH:
            break
    return points


def filtered(peer: Peer, queries: Any, cases: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Every case; `ms` of a filter that was used before, `new_ms` of its first use."""
    seen: set[Filter] = set()
    try:
        reported = {name: one_filter(peer, queries, each, seen) for name, each in cases.items()}
        return {"filters": reported}
    except Unsupported:
        return {"filters": {}}


def one_filter(
    peer: Peer, queries: Any, cases: list[dict[str, Any]], seen: set[Filter]
) -> dict[str, Any]:
    """One kind of filter, one query after the other."""
    times, new, found = [], [], []
    seconds = SECONDS["filter" if cases[0]["column"] != "price" else "sweep"]
    for number, case in while_time(enumerate(cases), seconds):
        where = Filter(case["column"], case["value"])
        before = timed(lambda n=number, w=where: peer.search(queries[n - 1], K, w))[0]
        if where not in seen:
            new.append(before)
        seen.add(where)
        taken, ids = timed(lambda n=number, w=where: peer.search(queries[n], K, w))
        times.append(taken)
        found.append(ids)
    truth = [case["truth"] for case in cases]
    short = sum(len(f) < len(t) for f, t in zip(found, truth, strict=False))
    worst = min(recall([f], [t]) for f, t in zip(found, truth, strict=False) if t)
    return {
        "ms": float(np.median(times)), "new_ms": float(np.median(new)) if new else None,
        "recall": recall(found, truth), "worst": worst, "short": short, "queries": len(found),
    }  # fmt: skip


def batched(peer: Peer, work: Work, figures: dict[str, Any]) -> dict[str, Any]:
    """1,000 queries at once, or as many as the time allows, from the setting of single ones on."""
    count = min(MANY, max(LEAST, int(SECONDS["batch"] * 1e3 / figures["query_ms"])))
    many = work.array("many")[:count]
    for setting in peer.settings[peer.settings.index(figures["setting"]) :]:
        peer.use(setting)
        runs = [timed(lambda: peer.batch(many, K)) for _ in range(3 if count > 500 else 1)]
        taken, found = min(runs, key=lambda run: run[0])
        reached = recall(found, work.plan["many"])
        if reached >= RECALL:
            break
    return {"batch_qs": count / taken * 1e3, "batch_recall": reached,
            "batch_queries": count, "batch_setting": setting}  # fmt: skip


def memory() -> dict[str, Any]:
    """Resident, private (not of a file that is mapped) and the most that there was."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"resident_mb": "VmRSS", "private_mb": "RssAnon", "peak_mb": "VmHWM"}
    return {name: int(lines[key].split()[0]) / 1024 for name, key in names.items()}


def grown(peer: Peer, parts: list[Rows], before: float, queries: Any) -> dict[str, Any]:
    """Adds of 1,000, each asked for at once."""
    adds, nexts, there = [], [], []
    for part in parts:
        adds.append(timed(lambda p=part: peer.add(p))[0])
        asked, found = timed(lambda p=part: peer.search(p.vectors[-1], K))
        nexts.append(asked)
        there.append(bool(found) and found[0] == part.ids[-1])
    after = [timed(lambda q=q: peer.search(q, K))[0] for q in while_time(queries, 3)]
    return {
        "add_ms": float(np.median(adds)), "adds_ms": adds, "add_found": all(there),
        "next_ms": float(np.median(nexts)), "next_ratio": float(np.median(nexts)) / before,
        "after_ratio": float(np.median(after)) / before,
    }  # fmt: skip


def shrunk(peer: Peer, vectors: Any) -> dict[str, Any]:
    """Deletes of 100, each asked for at once."""
    times, gone = [], []
    try:
        for start in (100, 300, 500):
            ids = np.arange(start, start + 100)
            times.append(timed(lambda i=ids: peer.delete(i))[0])
            found = itertools.chain(*(peer.search(np.array(vectors[i]), K) for i in ids[:5]))
            gone.append(not set(found) & set(ids.tolist()))
    except Unsupported:
        return {}
    return {"delete_ms": float(np.median(times)), "deletes_ms": times, "delete_gone": all(gone)}


def main() -> None:
    name, phase, work, store = sys.argv[1:5]
    peer, prepared = PEERS[name](Path(store)), Work(Path(work))
    if phase == "first":
        print(json.dumps(first(peer, prepared, json.loads(sys.argv[5]))), flush=True)
        os._exit(0)
    print(json.dumps((fill if phase == "fill" else ask)(peer, prepared)), flush=True)


if __name__ == "__main__":
    main()
