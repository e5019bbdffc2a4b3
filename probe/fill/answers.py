"""Classify what is on the shelf: answers one after the other, files of them, the sure ones written.

Nothing is encoded, and memory does not grow with the number of products but for the accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from kinshelf.db.errors import InputError
from kinshelf.probe.fill.report import StoredReport
from kinshelf.probe.fill.stored import BLOCK, StoredAnswer, StoredPredictor
from kinshelf.store.operations.apply import ApplyReport, Label, apply_labels
from kinshelf.store.results import Rows

if TYPE_CHECKING:
    import pandas as pd

    from kinshelf.store.base import AnyShelf


class StoredAnswers:
    """The answers to the products that match, computed anew whenever they are iterated over.

    `len()` is their number. All are of one generation and one probe.
    """

    def __init__(self, shelf: AnyShelf, predictor: StoredPredictor, where: str | None) -> None:
        self._shelf, self._predictor, self._where = shelf, predictor, where
        now = predictor.snapshot
        self._count = now.view.count(now.filter(where))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[StoredAnswer]:
        predictor, waiting = self._predictor, None
        with ThreadPoolExecutor(1, "kinshelf-classify") as pool:  # computes one block ahead
            for block in predictor.snapshot.iter_products(self._where, size=BLOCK):
                following = block, pool.submit(predictor.computed, block)
                if waiting:
                    yield from predictor.worded(waiting[0], waiting[1].result())
                waiting = following
            if waiting:
                yield from predictor.worded(waiting[0], waiting[1].result())

    def to_pandas(self) -> pd.DataFrame:
        """One row an answer; its columns are those of a file."""
        rows = Rows(answer.as_dict() for answer in self)
        return rows.to_pandas(StoredAnswer.COLUMNS)

    def check(self, *, apply: bool = False, file: Path | None = None) -> None:
        """Raises InputError where `run` could not write what is wanted."""
        if file is not None:
            from kinshelf.probe.fill.files import check_target

            check_target(file)
        probe = self._predictor.probe
        if apply and (probe is None or probe.policy is None):
            missing = "no probe is trained" if probe is None else "the probe has no policy"
            first = "`kinshelf train`, then " if probe is None else ""
            raise InputError(
                f"{missing}, so nothing is sure enough to be written unseen: run"
                f" {first}`kinshelf policy --precision 0.98` first"
            )

    def run(
        self,
        *,
        apply: bool = False,
        file: Path | None = None,
        each: Callable[[int, StoredAnswer], None] = lambda _done, _answer: None,
        write: Callable[[Callable[[AnyShelf], ApplyReport]], ApplyReport] | None = None,
    ) -> StoredReport:
        """Go through all answers once: write them to a `.csv`, `.jsonl`, `.parquet` or `.html`
        file, and with `apply` the accepted ones to the shelf, as one change that can be undone.

        `each` is called with every answer and how many there were so far. A category that a feed
        or a person set stays, as does a product that was changed meanwhile. `write` runs what
        changes the shelf; None: at once. Raises InputError or ShelfLocked.
        """
        self.check(apply=apply, file=file)
        report = self._begun()
        accepted: dict[str, Label] = {}

        def counted() -> Iterator[StoredAnswer]:
            for answer in self:
                report.count(answer)
                if apply and answer.to_write:
                    accepted[answer.id] = self._label(answer)
                each(report.products, answer)
                yield answer

        if file is None:
            for _ in counted():
                pass
        else:
            from kinshelf.probe.fill.files import write_answers

            write_answers(counted(), file, report)
            report.written = str(file)
        if apply:
            at_once = write or (lambda change: change(self._shelf))
            report.applied = at_once(lambda shelf: apply_labels(shelf, accepted))
        return report

    def _begun(self) -> StoredReport:
        predictor = self._predictor
        policy = predictor.probe.policy if predictor.probe else None
        return StoredReport(
            generation=predictor.snapshot.generation, probe=predictor.version,
            policy=None if policy is None else policy.wanted,
        )  # fmt: skip

    def _label(self, answer: StoredAnswer) -> Label:
        begun = self._begun()
        receipt = {
            "probe": begun.probe, "probability": round(answer.probability, 6),
            "policy": begun.policy, "generation": begun.generation,
        }  # fmt: skip
        return Label(answer.suggested_category, receipt, answer.row)


def classify_stored(
    shelf: AnyShelf,
    where: str | None = None,
    *,
    probe: int | None = None,
    at: int | None = None,
    k: int | None = None,
    include_predicted: bool = False,
) -> StoredAnswers:
    """The answers to the products on the shelf that match, from their stored vectors.

    A product's own label and those of its copies do not vote for it. `include_predicted`: let
    categories that a probe predicted vote as well. Raises FilterError, EmptyShelf, ProbeNotFound or
    GenerationNotFound.

    >>> answers = classify_stored(shelf, "category IS NOT NULL")
    >>> report = answers.run()
    >>> report.products == len(answers) == sum(report.verdicts.values())
    True
    """
    predictor = StoredPredictor.for_shelf(
        shelf, probe=probe, at=at, k=k, include_predicted=include_predicted
    )
    return StoredAnswers(shelf, predictor, where)
