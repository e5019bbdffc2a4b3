"""A job that somebody stops ends at its next step, and tells the time left until then."""

from __future__ import annotations

import threading
from typing import Any

from serve_world import until

from kinshelf.serve.base.asker import ASKER
from kinshelf.serve.service.jobs import Job, Jobs


def test_a_stopped_job_makes_nothing_and_another_may_begin() -> None:
    jobs, go, begun = Jobs(), threading.Event(), threading.Event()

    def work(tell: Any) -> dict[str, Any]:
        tell({"done": 1})
        begun.set()
        go.wait(30)
        tell({"done": 2})
        return {"made": True}

    job = jobs.start("train", work)
    assert begun.wait(30)
    jobs.stop("review")
    assert not job.stopping
    jobs.stop("train")
    go.set()
    until(lambda: job.state != "running")
    assert (job.state, job.result, len(job.events)) == ("stopped", None, 1)
    other = jobs.start("train", lambda tell: {"made": True})
    until(lambda: other.state == "done")
    jobs.close()


def test_a_job_knows_who_asked_for_it() -> None:
    jobs = Jobs()
    token = ASKER.set("anna")
    job = jobs.start("train", lambda tell: {"by": ASKER.get()})
    ASKER.reset(token)
    until(lambda: job.state == "done")
    assert job.result == {"by": "anna"}
    jobs.close()


def test_the_time_left_follows_from_the_part_that_is_done() -> None:
    begun = Job(1, "train", started=0.0)
    assert begun.left(0, 4) is None
    left = begun.left(1, 4)
    assert left is not None
    assert left > 3 * 1e9, "three quarters are left of what has taken since 1970"
