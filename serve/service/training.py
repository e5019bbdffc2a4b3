"""A probe trained as a job: each epoch and part of the calibration is an event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kinshelf.probe.train import train_shelf

if TYPE_CHECKING:
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
