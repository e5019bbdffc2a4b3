"""The suggestions for products without a category: made once, kept in memory, shown as sheets."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from kinshelf.store.operations.apply import Label

if TYPE_CHECKING:
    from kinshelf.probe.fill.report import StoredReport
    from kinshelf.probe.fill.stored import StoredAnswer
    from kinshelf.serve.service.jobs import Job, Tell
    from kinshelf.serve.service.service import Service
    from kinshelf.store.generation import AnySnapshot

JOB = "fill"
OPEN = "category IS NULL"
"""The products that are looked at."""


class Sheets:
    """The newest suggestions; what was decided since is left out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: tuple[StoredAnswer, ...] = ()
        self.report: StoredReport | None = None

    def look(self, service: Service) -> Job:
        """Begin to classify. Raises JobRunning or ShuttingDown."""

        def work(tell: Tell) -> dict[str, Any]:
            from kinshelf.probe.fill.answers import classify_stored

            answers = classify_stored(service.shelf, OPEN)
            kept: list[StoredAnswer] = []

            def each(done: int, answer: StoredAnswer) -> None:
                kept.append(answer)
                if done % 512 == 0 or done == len(answers):
                    tell({"step": "classify", "done": done, "of": len(answers)})

            report = answers.run(each=each)
            with self._lock:
                self._answers, self.report = tuple(kept), report
            return report.as_dict()

        return service.jobs.start(JOB, work)

    def open_answers(self, now: AnySnapshot, verdict: str = "") -> list[StoredAnswer]:
        """The suggestions for products that are as they were, of a verdict or all, the surest
        first."""
        with self._lock:
            answers = self._answers
        rows = set(now.view.rows(now.filter(OPEN)).tolist()) if answers else set[int]()
        found = [a for a in answers if a.row in rows and verdict in ("", a.verdict)]
        return sorted(found, key=lambda answer: (-answer.probability, answer.id))

    def labels(self, answers: list[StoredAnswer]) -> dict[str, Label]:
        """The suggestions with their receipts, as `apply_labels` takes them."""
        made = self.report
        receipt = {"probe": made and made.probe, "policy": made and made.policy,
                   "generation": made and made.generation}  # fmt: skip

        def label(answer: StoredAnswer) -> Label:
            sure = {"probability": round(answer.probability, 6)}
            return Label(answer.suggested_category, receipt | sure, answer.row)

        return {answer.id: label(answer) for answer in answers}


def counted(answers: list[StoredAnswer]) -> Counter[str]:
    """The suggestions by verdict."""
    return Counter(answer.verdict for answer in answers)


def grouped(answers: list[StoredAnswer]) -> list[tuple[str, list[StoredAnswer]]]:
    """The suggestions by category, the largest group first."""
    groups: dict[str, list[StoredAnswer]] = {}
    for answer in answers:
        groups.setdefault(answer.suggested_category, []).append(answer)
    return sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
