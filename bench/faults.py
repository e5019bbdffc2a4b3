"""The long runs of the fault suite; every one is seeded, and stops at the first broken promise.

python bench/faults.py kill 500 | syscalls | power 2000 | damage 1000 | readers 10000
                       | machine 10000 | interrupt 50 | stranger 1000 | deleted 100 | sectors 300
                       | graphs 2000 | oracle 2000 | swapped 300 | all   [--seed long]
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

# Instead of this file's own folder, in which `faults` is this file.
sys.path[0] = str(Path(__file__).resolve().parents[1] / "tests")

Run = Callable[[Path, str, int], object]
COUNTS = {
    "kill": 500, "syscalls": 1, "power": 2000, "damage": 1000, "readers": 10_000,
    "machine": 10_000, "interrupt": 50, "stranger": 1000, "deleted": 100, "sectors": 300,
    "graphs": 2000, "oracle": 2000, "swapped": 300,
}  # fmt: skip


def syscalls(directory: Path, _: str, count: int) -> object:
    """`count`: every how many-th case."""
    from faults import syscalls as module

    return module.run(directory, every=count)


def readers(directory: Path, _: str, count: int) -> object:
    """`count` rows, until about as many views were had."""
    from faults import readers as module

    idle, busy = module.run(directory, count, readers=4, idle=20, least=count)
    problems = [problem for seen in busy for problem in seen.problems]
    assert not problems, problems[:3]
    at_rest, at_work = (np.concatenate([s.latencies for s in seen]) for seen in (idle, busy))
    quiet, loud = np.percentile(at_rest, 95), np.percentile(at_work, 95)
    return (
        f"{len(at_work)} views of {sum(len(s.generations) for s in busy)} generations, 0 torn;"
        f" p95 idle {quiet * 1e3:.1f} ms, busy {loud * 1e3:.1f} ms: {loud / quiet:.1f} x"
    )


def machine(_: Path, __: str, count: int) -> object:
    from faults.machine import ShelfMachine
    from hypothesis import HealthCheck, settings
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        ShelfMachine,
        settings=settings(
            max_examples=max(1, count // 50), stateful_step_count=50, deadline=None,
            suppress_health_check=list(HealthCheck), derandomize=True,
        ),
    )  # fmt: skip
    return f"about {count} steps"


def seeded(name: str) -> Run:
    """A kind that is run by its directory, seed and number of cases alone."""

    def run(directory: Path, seed: str, count: int) -> object:
        return importlib.import_module(f"faults.{name}").run(directory, seed, count)

    return run


RUNS: dict[str, Run] = {
    **{name: seeded(name) for name in COUNTS},
    "syscalls": syscalls, "readers": readers, "machine": machine,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", choices=[*RUNS, "all"])
    parser.add_argument("count", nargs="?", type=int)
    parser.add_argument("--seed", default="long")
    options = parser.parse_args()
    for name in RUNS if options.run == "all" else [options.run]:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            found = RUNS[name](Path(folder), options.seed, options.count or COUNTS[name])
            print(f"{name}: {found} in {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
