"""Out-of-fold predictions of probe and neighbours for each categorised product.

Each product is judged by a probe that trained on other folds and by neighbours other than itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import Float64Array, FloatArray, IntArray
from kinshelf.probe.audit.facts import Facts
from kinshelf.probe.audit.graph import Graph
from kinshelf.probe.fit.copies import groups_of
from kinshelf.probe.fit.knn import NO_VOTE, knn_distribution
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.split import FOLDS, TrainingSet, encode, judgeable
from kinshelf.probe.fit.training import fit_probe

if TYPE_CHECKING:
    from kinshelf.probe.fit.model import Probe
    from kinshelf.store.generation import AnySnapshot

VOTERS = 10
"""Neighbours that vote."""

TAU = 0.02
"""Of their weights, as in `Calibration`."""

NEIGHBOURS_SHARE = 0.3
"""Of the mixed distribution. With 5 % of 828 labels planted wrong, the worst 5 % held 88 % of them
by the probe alone, 90 % with shares from 0.1 to 0.3, 72 % by the neighbours alone."""

_BLOCK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """Predictions for the m categorised products at `places`, (m,) int64 into the facts.

    `codes` (m,) int64 are their categories' places in `classes`, `proba` (m, n_classes) float32 the
    mixed distribution. `image_code`, `text_code` (m,) int64 and `image_proba`, `text_proba` (m,)
    float32 are what the probe makes of picture and text alone; code -1 where that is missing.
    """

    places: IntArray
    classes: tuple[str, ...]
    codes: IntArray
    proba: FloatArray
    image_code: IntArray
    image_proba: FloatArray
    text_code: IntArray
    text_proba: FloatArray


def judge_out_of_fold(
    snapshot: AnySnapshot,
    graph: Graph,
    facts: Facts,
    settings: ProbeSettings,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> OutOfFold | None:
    """None where fewer than two categories have two products: there is nothing to tell apart.

    A category of one product, or of nothing but its copies, is left out, as no fold could both
    learn and judge it. Copies do not judge one another. In memory: 4 bytes a product and category.
    """
    places = _categorised(facts)
    groups = groups_of(snapshot, facts.rows[places], settings.group)
    places, groups = _judgeable(facts, places, groups)
    classes, codes = encode(facts.categories[places])
    if len(classes) < 2:
        return None
    found = _empty(places, classes, codes)
    whole = TrainingSet(snapshot, facts.rows[places], codes, classes, groups)
    for done, (train, judged) in enumerate(whole.rounds(settings.seed), start=1):
        probe = fit_probe(whole.take(train), settings).probe
        for start in range(0, len(judged), _BLOCK):
            _judge(snapshot, whole.rows, probe, found, judged[start : start + _BLOCK])
        progress(done, FOLDS)
    _mix_votes(found, graph, groups)
    return found


def _categorised(facts: Facts) -> IntArray:
    given = np.array([category is not None for category in facts.categories], dtype=np.bool_)
    return np.flatnonzero(given).astype(np.int64)


def _judgeable(facts: Facts, places: IntArray, groups: IntArray) -> tuple[IntArray, IntArray]:
    """Those of the `places`, and their groups, whose category has another group."""
    kept = judgeable(encode(facts.categories[places])[1], groups)
    return places[kept], groups[kept]


def _empty(places: IntArray, classes: tuple[str, ...], codes: IntArray) -> OutOfFold:
    m = len(places)
    proba = np.zeros((m, len(classes)), dtype=np.float32)
    image_code, text_code = (np.full(m, -1, dtype=np.int64) for _ in range(2))
    image_proba, text_proba = (np.zeros(m, dtype=np.float32) for _ in range(2))
    return OutOfFold(places, classes, codes, proba, image_code, image_proba, text_code, text_proba)


def _judge(
    snapshot: AnySnapshot, rows: IntArray, probe: Probe, found: OutOfFold, judged: IntArray
) -> None:
    fused = snapshot.fused(rows[judged])
    found.proba[judged] = probe.predict_proba(fused)
    half = fused.shape[1] // 2
    image, text = fused.copy(), fused.copy()
    image[:, half:], text[:, :half] = 0, 0
    for alone, code, proba in (
        (image, found.image_code, found.image_proba), (text, found.text_code, found.text_proba),
    ):  # fmt: skip
        predicted = probe.predict_proba(alone)
        code[judged] = np.where(alone.any(axis=1), predicted.argmax(axis=1), -1)
        proba[judged] = predicted.max(axis=1)


def _mix_votes(found: OutOfFold, graph: Graph, groups: IntArray) -> None:
    code_of, group_of = np.full((2, len(graph)), NO_VOTE, dtype=np.int64)
    code_of[found.places], group_of[found.places] = found.codes, groups
    for start in range(0, len(found.places), _BLOCK):
        part = slice(start, start + _BLOCK)
        votes = _votes(graph, group_of, code_of, found.places[part], len(found.classes))
        voted = votes.any(axis=1)
        mixed = (1 - NEIGHBOURS_SHARE) * found.proba[part] + NEIGHBOURS_SHARE * votes
        found.proba[part][voted] = mixed[voted]


def _votes(
    graph: Graph, group_of: IntArray, code_of: IntArray, places: IntArray, n_classes: int
) -> Float64Array:
    near = graph.places[places]
    labels = np.where(
        (near >= 0) & (group_of[near] != group_of[places, None]), code_of[near], NO_VOTE
    )
    voting = labels != NO_VOTE
    labels[voting & (np.cumsum(voting, axis=1) > VOTERS)] = NO_VOTE
    return knn_distribution(graph.similarities[places], labels, TAU, n_classes)
