"""The policy for answers that need no review: a threshold with a promised precision.

Learn then Test (Angelopoulos et al. 2021, arXiv 2110.01052): thresholds are tested one after the
other in an order that does not depend on which answers were right, each with an exact binomial
test at the full level, until one fails; so the chance that the promise is broken is at most
1 - confidence. The order begins where, by the answers' own probabilities, a test is most likely to
pass, and goes on downwards.

The answers are of products that neither trained the probe that judged them nor chose its
calibration; of copies one counts. So the bound is exact for the procedure that gave these answers.
The deployed probe is another one, trained and calibrated on all rows: of 200 training sets it
broke the promise in 0 to 15 %, where the confidence allows 10 % (`bench/promise.py`).
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import Float64Array, IntArray
from kinshelf.db.errors import ProbeError
from kinshelf.probe.calibrate.intervals import check_share, lower_bound, upper_bound
from kinshelf.probe.calibrate.mixture import HeldOut
from kinshelf.probe.fit.settings import Policy
from kinshelf.probe.fit.storage import LOG_FILE, read_probe, write_probe
from kinshelf.store.probes import find_probe, save_probe

if TYPE_CHECKING:
    from kinshelf.store.base import AnyShelf

CONFIDENCE = 0.9
_STEP = 0.005
"""Between the precisions that are tried to say what can be promised instead."""


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """The probe that `policy` made, the one whose weights it has, and what it promises."""

    probe: int
    based_on: int
    generation: int
    policy: Policy

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; `precision_wanted` is what was asked for."""
        fields = asdict(self.policy)
        wanted = fields.pop("wanted")
        rest = {"probe": self.probe, "based_on": self.based_on, "generation": self.generation}
        return {"precision_wanted": wanted} | fields | rest


def set_policy(
    shelf: AnyShelf,
    precision: float,
    *,
    confidence: float = CONFIDENCE,
    depth: bool = False,
    version: int | None = None,
) -> PolicyReport:
    """Find the policy of a probe, the newest unless named, and store it with a copy of that probe.

    Probes are immutable, so the copy is a new version, whose answers differ in their verdict
    alone. With `depth` a category that stands under others is accepted only where the answer is
    sure down to it (see `probe.calibrate.depth`). Raises ProbeNotFound, ShelfLocked,
    InvalidSetting, or ProbeError: the probe has nothing
    to find it by, or no threshold reaches the precision; nothing is stored then.
    """
    with shelf.writing():
        entry = find_probe(shelf, shelf.snapshot(), version)
        probe = read_probe(entry.path)
        held_out = HeldOut.of(probe.reference)
        if held_out is None:
            raise ProbeError(
                f"probe {entry.version} has no held-out answers to find a policy by: train it"
                " again, on 20 products or more, with `kinshelf train`"
            )
        policy = replace(find_policy(held_out, precision, confidence), depth=depth)
        changed = probe.replace(policy=policy)

        def write(directory: Path) -> None:
            write_probe(directory, changed, ())
            shutil.copyfile(entry.path / LOG_FILE, directory / LOG_FILE)

        saved = save_probe(
            shelf, write, trained_on=entry.trained_on, classes=len(probe.classes),
            metrics=entry.metrics, command="policy",
        )  # fmt: skip
        return PolicyReport(saved, entry.version, shelf.generation, policy)


def find_policy(held_out: HeldOut, precision: float, confidence: float = CONFIDENCE) -> Policy:
    """The lowest threshold that keeps a precision, with a confidence, among answers on which probe
    and neighbours agree. Raises InvalidSetting, or ProbeError naming what can be promised."""
    check_share("precision", precision)
    check_share("confidence", confidence)
    levels = _levels(held_out)
    found = levels.lowest(precision, confidence)
    if found is None:
        raise ProbeError(_refusal(levels, precision, confidence))
    n, right = levels.passed[found], levels.right[found]
    return Policy(
        wanted=precision,
        threshold=float(levels.thresholds[found]),
        automation=float(n / len(held_out)),
        precision=float(right / n),
        precision_low=float(lower_bound(right, n, confidence)),
        precision_high=float(upper_bound(right, n, confidence)),
        confidence=confidence,
        n=int(n),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """Thresholds (m,) descending; how many answers pass each, how many of these are right, and
    how probable they are on average."""

    thresholds: Float64Array
    passed: IntArray
    right: IntArray
    probability: Float64Array

    def lowest(self, precision: float, confidence: float) -> int | None:
        """The place of the last test that passes, None if the first fails."""
        if not len(self.thresholds):
            return None
        promise = (self.probability - precision) * np.sqrt(self.passed)
        start = int(np.argmax(promise))
        holds = lower_bound(self.right, self.passed, confidence)[start:] >= precision
        failed = np.flatnonzero(~holds)
        count = int(failed[0]) if len(failed) else len(holds)
        return start + count - 1 if count else None


def _levels(held_out: HeldOut) -> Thresholds:
    confidence, right = held_out.confidence[held_out.agree], held_out.right[held_out.agree]
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    last = np.ones(len(order), dtype=np.bool_)
    last[:-1] = confidence[1:] != confidence[:-1]
    passed = np.flatnonzero(last) + 1
    return Thresholds(
        thresholds=confidence[last],
        passed=passed,
        right=np.cumsum(right, dtype=np.int64)[last],
        probability=np.cumsum(confidence)[last] / passed,
    )


def _refusal(levels: Thresholds, precision: float, confidence: float) -> str:
    tried = np.arange(np.floor(precision / _STEP - 1e-9), 0, -1) * _STEP
    best = next((p for p in tried if levels.lowest(float(p), confidence) is not None), None)
    agreed = int(levels.passed[-1]) if len(levels.passed) else 0
    needed = int(np.ceil(np.log(1 - confidence) / np.log(precision)))
    most = "none can" if best is None else f"{best:.3f} is the most that can"
    why = (
        f"that takes {needed} answers, all of them right, and there are {agreed}: add categorised"
        " products"
        if agreed < needed
        else "look for wrong labels with `kinshelf audit`, or add categorised products"
    )
    instead = "" if best is None else f", or ask for --precision {best:.3f}"
    return (
        f"no threshold promises a precision of {precision:.10g} with a confidence of"
        f" {confidence:.10g};"
        f" {most} be promised on the {agreed} held-out answers on which probe and neighbours"
        f" agree. {why[0].upper()}{why[1:]} and train again{instead}"
    )
