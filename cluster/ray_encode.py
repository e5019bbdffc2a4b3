"""The encoding's tasks on Ray Data: an actor pool of encoders over a folder that all see.

What travels through Ray are names. A task's rows are in `DIR/tasks/`, its part appears in `DIR`, so
a worker that dies, a task that is done twice and a driver that is run again all end in the same
files. A task that takes too long ends its worker, and Ray starts another.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kinshelf.cluster.part import EncoderSpec, PartEncoder
from kinshelf.cluster.ray_start import ray_cluster
from kinshelf.db.errors import ClusterError, KinshelfError
from kinshelf.db.host import take_over
from kinshelf.db.threads import SETTING
from kinshelf.store.log import disk

if TYPE_CHECKING:
    from kinshelf.cluster.tasks import Task


class Options(Protocol):
    """Limits: the number of workers, and the time each has for a part."""

    @property
    def workers(self) -> int | None: ...
    @property
    def cpus(self) -> int: ...
    @property
    def timeout(self) -> float: ...


class Run(Protocol):
    """The part of an encoding that the workers need; `cluster.encode.Run` has it."""

    spec: EncoderSpec
    directory: Path

    @property
    def options(self) -> Options: ...
    def part_done(self, rows: int) -> bool:
        """Count a part that was done; whether to go on."""


TASKS = "tasks"
TRIES = 5
"""Attempts at a part, each ended by a time-out or a lost worker, before it is given up."""

_BLOCKS = 4096
"""Blocks that Ray is given at most: beyond, each holds several tasks."""


def encode_on_ray(run: Run, tasks: Iterable[Task], address: str) -> None:
    """Encode the tasks that are lacking; the parts are in the run's folder afterwards.

    Raises ClusterError, naming the parts that could not be done, once all others are.
    """
    folder = run.directory / TASKS
    disk.remove_tree(folder)
    disk.make_directory(folder)
    rows = {task.name: _spool(folder, task) for task in tasks}
    if rows:
        with ray_cluster(address) as ray:
            failed = _run(run, ray, rows)
        if failed:
            raise ClusterError(_failure(failed, len(rows)))
    disk.remove_tree(folder)


def _spool(folder: Path, task: Task) -> int:
    (folder / task.name).with_suffix(".json").write_bytes(task.data)
    return task.rows


def _run(run: Run, ray: Any, rows: dict[str, int]) -> dict[str, str]:
    """Have every task done; returns why some could not be, by name."""
    failed: dict[str, str] = {}
    results = _results(run, ray, list(rows))
    try:
        for result in results:
            name = result["part"]
            if result["error"]:
                failed[name] = result["error"]
            elif not run.part_done(rows[name]):
                break
    except ray.exceptions.RayError as problem:
        reason = str(problem).strip().rpartition("\n")[2]
        raise ClusterError(
            f"Ray gave up ({reason}): see its logs; run the same command again to go on (every"
            " node needs kinshelf[cluster] of the same version)"
        ) from problem
    return failed


def _results(run: Run, ray: Any, names: list[str]) -> Any:
    count, resources = _pool(run, ray)
    # Tasks take long: what waits behind one while another worker has none is time lost. A GPU's
    # are short, and it has the next at hand.
    pool = ray.data.ActorPoolStrategy(
        min_size=1, max_size=count, initial_size=count,
        max_tasks_in_flight_per_actor=2 if resources["num_gpus"] else 1,
    )  # fmt: skip
    data = ray.data.from_items(
        [{"part": name} for name in names], override_num_blocks=min(len(names), _BLOCKS)
    )
    done = data.map_batches(
        RayEncoder,
        fn_constructor_args=(
            run.spec.dump(), str(run.directory.resolve()), run.options.timeout, run.options.cpus,
        ),
        batch_size=1, compute=pool, **resources,
    )  # fmt: skip
    return done.iter_rows()


def _pool(run: Run, ray: Any) -> tuple[int, dict[str, float]]:
    """How many actors, and what each needs."""
    there, cpus = ray.cluster_resources(), run.options.cpus
    gpus = int(there.get("GPU", 0))
    fitting = gpus or int(there.get("CPU", 0)) // cpus
    if not fitting:
        raise ClusterError(f"no node of the cluster has {cpus} CPUs: give fewer, or add nodes")
    resources: dict[str, float] = {"num_cpus": cpus, "num_gpus": min(gpus, 1)}
    return max(1, min(run.options.workers or fitting, fitting)), resources


class RayEncoder:
    """An actor: one encoder, and a folder that it reads tasks from and writes parts to."""

    def __init__(self, spec: str, directory: str, timeout: float, cpus: int) -> None:
        take_over()  # an actor has a process of its own
        os.environ[SETTING] = str(cpus)
        self._directory, self._timeout = Path(directory), timeout
        self._problem: str | None = None
        try:
            self._encoder = PartEncoder(EncoderSpec.read(spec))
        except KinshelfError as problem:
            self._problem = str(problem)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Do a batch of tasks, by name; `error` is "" where the part is there."""
        names = [str(name) for name in batch["part"]]
        return {"part": names, "error": [self._one(name) for name in names]}

    def _one(self, name: str) -> str:
        if self._problem:
            return self._problem
        try:
            return "" if (self._directory / name).exists() else self._timed(name)
        except (KinshelfError, OSError) as problem:
            return str(problem)

    def _timed(self, name: str) -> str:
        if (tries := self._try(name)) > TRIES:
            limit = f"{self._timeout:g} s"
            return (
                f"given up after {tries - 1} tries: each took more than {limit}, or lost its worker"
            )
        # A thread that hangs cannot be ended; a process can, and Ray does its tasks again.
        watch = threading.Timer(self._timeout, os._exit, (1,))
        watch.daemon = True
        watch.start()
        try:
            self._write(name)
        finally:
            watch.cancel()
        return ""

    def _write(self, name: str) -> None:
        task = self._directory / TASKS / name
        self._encoder.write(task.with_suffix(".json").read_bytes(), self._directory / name)

    def _try(self, name: str) -> int:
        """Which try at this task begins, counted on the disk: the workers before are dead."""
        path = (self._directory / TASKS / name).with_suffix(".tries")
        with path.open("ab") as file:
            file.write(b".")
        return path.stat().st_size


def _failure(failed: dict[str, str], parts: int) -> str:
    name, reason = next(iter(failed.items()))
    return (
        f"{len(failed)} of {parts} parts could not be encoded, {name}: {reason}; run the same"
        " command again to try these once more (--timeout gives each more time)"
    )
