"""The same work on the same vectors for kinshelf and its peers, side by side.

    pip install -r bench/peers-requirements.txt
    python bench/peers.py [--rows 100000] [--only NAME …] [-o FILE.json] [--picture FILE.png]

Ingest, open and first query, single queries at recall@10 >= 0.99, filters that have to do with the
query and that have not, a batch, add, delete, disk, memory. Each peer runs in processes of its
own, one after the other. `-o` keeps the figures: a later call with `--only` measures again what it
names, and the table and the picture are of all that the file holds; `--draw` measures nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers_list import PEERS
from peers_report import draw, table
from peers_work import prepare

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


def run(names: list[str], rows: int, data: str, directory: Path, results: dict[str, Any]) -> None:
    """Measure the peers one after the other."""
    for name in names:
        peer, found = PEERS[name], version(name)
        if found is None:
            print(f"{peer.name} is not installed: {REQUIREMENTS}  ({peer.package})", flush=True)
            continue
        count = min(rows, peer.limit)
        work = directory / f"work-{count}-{data}"
        prepare(work, count, data)
        print(f"{peer.name} {found}, {count:,} rows …", file=sys.stderr, flush=True)
        figures = measured(name, work, directory)
        figures |= {"version": found, "data": data, "machine": machine(),
                    "load": os.getloadavg()[0], "date": time.strftime("%Y-%m-%d")}  # fmt: skip
        results.setdefault(str(count), {})[name] = figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--data", choices=("blends", "clusters", "smooth"), default="blends")
    parser.add_argument("--directory", type=Path, help="the work stays there for the next call")
    parser.add_argument("-o", "--output", type=Path, help="JSON, added to")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--draw", action="store_true", help="only what -o holds")
    options = parser.parse_args()
    known = options.output is not None and options.output.exists()
    results: dict[str, Any] = json.loads(options.output.read_text()) if known else {}
    if not options.draw:
        directory = options.directory or Path(tempfile.mkdtemp())
        directory.mkdir(parents=True, exist_ok=True)
        try:
            run(options.only, options.rows, options.data, directory, results)
        finally:
            if options.directory is None:
                shutil.rmtree(directory)
            if options.output is not None:
                options.output.write_text(json.dumps(results, indent=1))
    for rows in sorted(results, key=int, reverse=True):
        print(table(int(rows), results[rows]))
    if options.picture is not None and results:
        largest = max(results, key=int)
        draw(int(largest), results[largest], options.picture)


if __name__ == "__main__":
    main()
