"""Work that outlasts a request: one job of a kind at a time, its progress kept for whoever asks."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from kinshelf.db.errors import KinshelfError
from kinshelf.serve.base.errors import JobNotFound, JobRunning, ShuttingDown, error_body

Tell = Callable[[dict[str, Any]], None]

KEPT = 50
"""Jobs that are remembered."""

_LOOK = 0.1
_SILENT = 50


class Stopped(Exception):
    """Raised inside a job that is to end."""


@dataclass(slots=True)
class Job:
    """`state` is `running`, `done`, `failed` or `stopped`; `events` are its progress, in order."""

    id: int
    kind: str
    started: float
    state: str = "running"
    finished: float | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    stopping: bool = False

    def left(self, done: float, parts: float) -> float | None:
        """Seconds until it is done, as far as the part of it tells; None at its beginning."""
        taken = time.time() - self.started
        return taken * (parts - done) / done if done > 0 and taken > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """For `GET /jobs/{id}`; of the progress, the last event."""
        names = ("id", "kind", "state", "started", "finished", "result", "error", "stopping")
        found = {name: getattr(self, name) for name in names}
        return found | {"progress": self.events[-1] if self.events else None}


class Jobs:
    """Runs jobs, each in a thread; safe to use from any thread."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._next = 1
        self._ending = False

    def start(self, kind: str, work: Callable[[Tell], dict[str, Any]]) -> Job:
        """Begin `work`, which calls back with each step. Raises JobRunning or ShuttingDown."""
        with self._lock:
            if self._ending:
                raise ShuttingDown("the server is shutting down")
            for job in self._jobs.values():
                if job.kind == kind and job.state == "running":
                    raise JobRunning(f"job {job.id} does that already: see /jobs/{job.id}")
            job = Job(self._next, kind, time.time())
            self._jobs[job.id] = job
            self._next += 1
            if len(self._jobs) > KEPT:
                self._jobs.popitem(last=False)
            # in the context of who asked, whose name its operation bears
            thread = threading.Thread(
                target=contextvars.copy_context().run,
                args=(self._run, job, work),
                name=f"kinshelf-{kind}",
            )
            self._threads = [t for t in self._threads if t.is_alive()] + [thread]
            thread.start()
        return job

    def get(self, number: int) -> Job:
        """Raises JobNotFound."""
        with self._lock:
            if number not in self._jobs:
                raise JobNotFound(f"there is no job {number}: see /jobs for those that there are")
            return self._jobs[number]

    def list(self) -> list[Job]:
        """The newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def stop(self, kind: str) -> None:
        """Let the running job of a kind end at its next step."""
        with self._lock:
            for job in self._jobs.values():
                if job.kind == kind and job.state == "running":
                    job.stopping = True

    async def follow(
        self, number: int, seen: int = 0
    ) -> AsyncIterator[tuple[int, dict[str, Any]] | None]:
        """Events from the `seen`-th on as they come, (place, event); None now and then without.

        Ends with the job, or when the server does.
        """
        job, quiet = self.get(number), 0
        while True:
            over = job.state != "running" or self._ending
            for event in job.events[seen:]:
                seen, quiet = seen + 1, 0
                yield seen, event
            if over:
                return
            quiet += 1
            if quiet % _SILENT == 0:
                yield None
            await asyncio.sleep(_LOOK)

    @property
    def running(self) -> int:
        """The number of running jobs."""
        with self._lock:
            return sum(job.state == "running" for job in self._jobs.values())

    def _run(self, job: Job, work: Callable[[Tell], dict[str, Any]]) -> None:
        def tell(event: dict[str, Any]) -> None:
            with self._lock:
                if self._ending or job.stopping:
                    raise Stopped
                job.events.append(event)

        try:
            self._end(job, "done", result=work(tell))
        except Stopped:
            self._end(job, "stopped")
        except KinshelfError as error:
            self._end(job, "failed", error=error_body(error)["error"])
        except Exception as error:
            trouble = KinshelfError(f"the job failed: {type(error).__name__}: {error}")
            self._end(job, "failed", error=error_body(trouble)["error"])
            raise

    def _end(self, job: Job, state: str, **outcome: Any) -> None:
        with self._lock:
            job.result, job.error = outcome.get("result"), outcome.get("error")
            job.state, job.finished = state, time.time()

    def end(self) -> None:
        """Begin no more, let what runs stop at its next step, and let followers go.

        Without the lock: a signal may come while its own thread holds it.
        """
        self._ending = True

    def close(self) -> None:
        """End, and wait for what runs."""
        self.end()
        with self._lock:  # whoever was about to begin a job has
            threads = list(self._threads)
        for thread in threads:
            thread.join()
