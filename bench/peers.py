"""The same work on the same vectors for kinshelf and its peers, side by side.

    pip install -r bench/peers-requirements.txt
    python bench/peers.py [--rows 100000] [--only NAME …] [-o FILE.json] [--picture FILE.png]
                          [--data blends clusters smooth] [--source amazon2020 gaussian] [--runs 5]
                          [--curves FILE.png]

Ingest, open and first query, single queries at recall@10 >= 0.99, filters that have to do with the
query and that have not, a batch, add, delete, disk, memory. Each peer runs in processes of its
own, one after the other, and of several runs the median counts. `-o` keeps the figures: a later
call with `--only` measures again what it names, and tables and pictures are of all that the file
holds; `--draw` measures nothing. A table or picture is of one kind of vectors, which it names.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers_list import PEERS
from peers_report import draw, draw_curves, table
from peers_work import prepare
from vectors import Kind, add_options, kinds

CHILD = Path(__file__).with_name("peers_child.py")
REQUIREMENTS = "pip install -r bench/peers-requirements.txt"


def machine() -> str:
    """What it runs on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (f"{model or platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GB,"
            f" Python {platform.python_version()}")  # fmt: skip


def version(name: str) -> str | None:
    """The peer's version; None: it is not installed."""
    package = "kinshelf" if name == "kinshelf" else PEERS[name].package.split()[0]
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def child(name: str, phase: str, work: Path, store: Path, *more: str) -> dict[str, Any]:
    """Run a phase; `wall_s` is the time until its answer, start of the process included."""
    line = [sys.executable, str(CHILD), name, phase, str(work), str(store), *more]
    started = time.perf_counter()
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        answers = [text for text in process.stdout if text.startswith("{")]
        taken = time.perf_counter() - started
    if process.returncode or not answers:
        raise RuntimeError(f"{name}: phase {phase} failed")
    figures: dict[str, Any] = json.loads(answers[-1])
    return figures | {"wall_s": taken}


def measured(name: str, work: Path, directory: Path) -> dict[str, Any]:
    """All figures of one peer."""
    store = directory / f"store-{name}"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    try:
        figures = child(name, "fill", work, store)
        setting: dict[str, Any] = {}
        shutil.copytree(store, copy := directory / f"asked-{name}")
        figures |= child(name, "ask", work, copy)
        setting = json.dumps(figures["setting"])
        firsts = [child(name, "first", work, store, setting)["wall_s"] for _ in range(3)]
    finally:
        shutil.rmtree(store)
        shutil.rmtree(directory / f"asked-{name}", ignore_errors=True)
    return figures | {"first_s": min(firsts)}


def run(options: argparse.Namespace, directory: Path, results: dict[str, Any]) -> None:
    """Measure the peers one after the other, and again for each run: all of them share its hour."""
    for kind in kinds(options):
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for number in range(options.runs):
            for name in options.only:
                if figures := once(name, options.rows, kind, directory, f"run {number + 1}"):
                    runs.setdefault((figures["of"], name), []).append(figures)
        for (of, name), found in runs.items():
            results.setdefault(of, {})[name] = middle(found) | {"runs": found}


def once(name: str, rows: int, kind: Kind, directory: Path, run_: str) -> dict[str, Any] | None:
    """One run of a peer; None where it is not installed."""
    peer, found = PEERS[name], version(name)
    if found is None:
        print(f"{peer.name} is not installed: {REQUIREMENTS}  ({peer.package})", flush=True)
        return None
    count = min(rows, peer.limit)
    work = directory / f"work-{count}-{kind.maker}-{kind.source}"
    prepare(work, count, kind)
    print(f"{peer.name} {found}, {count:,} {kind}, {run_} …", file=sys.stderr, flush=True)
    return measured(name, work, directory) | {
        "version": found, "data": str(kind), "of": f"{count} x {kind}", "machine": machine(),
        "load": os.getloadavg()[0], "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def middle(found: list[Any]) -> Any:
    """The median of each number of several runs; what is no number, of the first."""
    first = found[0]
    if isinstance(first, dict):
        return {key: middle([each[key] for each in found if key in each]) for key in first}
    if isinstance(first, list) and len({len(each) for each in found}) == 1:
        return [middle(list(each)) for each in zip(*found, strict=True)]
    if isinstance(first, bool):
        return all(found)
    if isinstance(first, int | float) and None not in found:
        return statistics.median(found)
    return first


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS))
    add_options(parser)
    parser.add_argument("--runs", type=int, default=1, help="of which the median counts")
    parser.add_argument("--directory", type=Path, help="the work stays there for the next call")
    parser.add_argument("-o", "--output", type=Path, help="JSON, added to")
    parser.add_argument("--picture", type=Path, help="of the most rows of the first kind")
    parser.add_argument("--curves", type=Path, help="recall and time of every setting, a picture")
    parser.add_argument("--draw", action="store_true", help="only what -o holds")
    options = parser.parse_args()
    known = options.output is not None and options.output.exists()
    results: dict[str, Any] = json.loads(options.output.read_text()) if known else {}
    if any(" x " not in of for of in results):
        parser.error(f"{options.output} does not name its data: measure again, into another file")
    if not options.draw:
        directory = options.directory or Path(tempfile.mkdtemp())
        directory.mkdir(parents=True, exist_ok=True)
        try:
            run(options, directory, results)
        finally:
            if options.directory is None:
                shutil.rmtree(directory)
            if options.output is not None:
                options.output.write_text(json.dumps(results, indent=1))
    for of, figures in results.items():
        print(table(of, figures))
    largest = max(results, key=lambda of: int(of.split()[0]), default=None)
    for path, drawn in ((options.picture, draw), (options.curves, draw_curves)):
        if path is not None and largest is not None:
            drawn(largest, results[largest], path)


if __name__ == "__main__":
    main()
