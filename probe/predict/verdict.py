"""The verdict on an answer: accept, review, or possibly new."""

from __future__ import annotations

from kinshelf.probe.fit.settings import Policy
from kinshelf.probe.novelty.model import is_novel
from kinshelf.probe.predict.prediction import Levels, Vote

ACCEPT = 0.9
"""An answer of at least this probability is accepted while the probe has no policy."""

CONFIDENT = 0.6
"""Probe and neighbours conflict only if both are at least this sure of different categories."""

SURE = 0.9
"""Picture and text conflict only if each alone is at least this sure of another category."""


def verdict_of(
    answer: Vote,
    probe: Vote | None,
    knn: Vote | None,
    parts: tuple[Vote | None, Vote | None],
    novelty_p: float | None,
    policy: Policy | None,
    *,
    arrived: bool,
    calibrated: bool,
    unsure_of_leaf: bool = False,
) -> str:
    """`novel`, `conflict`, `accept` or `review`.

    `parts` are the predictions from picture and text alone; `knn` is None where no neighbour voted.
    `arrived`: the answer is a category that the probe never saw, or hardly any of, so that it
    cannot be asked to agree.
    `calibrated`: a probe was trained and calibrated here; nothing is accepted before that.
    `unsure_of_leaf`: see `is_unsure`.
    """
    if is_novel(novelty_p, arrived=arrived):
        return "novel"
    if modalities_conflict(parts):
        return "conflict"
    if knn is None:
        return "review"
    agreed = probe is None or (answer if arrived else probe).category == knn.category
    if not agreed:
        confident = probe is not None and min(probe.probability, knn.probability) >= CONFIDENT
        return "conflict" if confident and not arrived else "review"
    threshold = policy.threshold if policy else ACCEPT
    sure = answer.probability >= threshold and not unsure_of_leaf
    return "accept" if calibrated and sure else "review"


def is_unsure(levels: Levels | None, policy: Policy | None) -> bool:
    """Whether the policy asks for an answer that is sure down to its last level, and it is not."""
    return levels is not None and policy is not None and policy.depth and not levels.is_sure


def modalities_conflict(parts: tuple[Vote | None, Vote | None]) -> bool:
    """Whether picture and text are each sure of another category."""
    image, text = parts
    if image is None or text is None or image.category == text.category:
        return False
    return min(image.probability, text.probability) >= SURE
