"""Work as jobs: a probe trained, products on the shelf classified; each step is an event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kinshelf.probe.fill.stored import BLOCK
from kinshelf.probe.train import train_shelf

if TYPE_CHECKING:
    from kinshelf.probe.fill.answers import StoredAnswers
    from kinshelf.probe.fill.stored import StoredAnswer
    from kinshelf.probe.fit.settings import ProbeSettings
    from kinshelf.probe.fit.training import EpochResult
    from kinshelf.serve.service.jobs import Tell
    from kinshelf.store.base import AnyShelf


def training(
    shelf: Callable[[], AnyShelf], settings: ProbeSettings | None, *, warm_start: bool
) -> Callable[[Tell], dict[str, Any]]:
    """The work of a training job; its result is `TrainReport.as_dict()`."""

    def work(tell: Tell) -> dict[str, Any]:
        def epoch(result: EpochResult) -> None:
            tell({"step": "epoch", **asdict(result)})

        def part(done: int, parts: int) -> None:
            tell({"step": "calibrate", "done": done, "parts": parts})

        report = train_shelf(shelf(), settings, on_epoch=epoch, on_part=part, warm_start=warm_start)
        return report.as_dict()

    return work


def filling(
    answers: StoredAnswers, write: Callable[[Callable[[AnyShelf], Any]], Any], *, apply: bool
) -> Callable[[Tell], dict[str, Any]]:
    """The work of a job that classifies; its result is `StoredReport.as_dict()`.

    `write` runs what changes the shelf, as `Service.write` does.
    """

    def work(tell: Tell) -> dict[str, Any]:
        def each(done: int, _answer: StoredAnswer) -> None:
            if done % BLOCK == 0 or done == len(answers):
                tell({"step": "classify", "done": done, "of": len(answers)})

        return answers.run(apply=apply, each=each, write=write).as_dict()

    return work
