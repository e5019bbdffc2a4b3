"""How often a policy keeps less than it promises, over many training sets of one population.

    python bench/promise.py [--splits 200] [--categories 4 50] [--rows 600 1500] [--workers 2]

Each split draws training rows from a mixture of directions, trains and calibrates a probe as
`kinshelf train` does, finds the policy for precisions of 0.95, 0.98 and 0.99 with 90 % confidence,
and counts what the probe that is deployed really accepts among 10,000 fresh rows of the same
mixture. The policy is found twice: on answers whose calibration was chosen on the same rows, and
on answers whose calibration was chosen on others, as kinshelf does.

Of 200 splits each (2 workers, shared cores: 12 and 17 minutes), broken is a policy that accepted a
smaller share of right answers than was asked for; the confidence of 90 % allows it in 20:

    categories, rows         4, 600                       50, 1,500
    precision                0.95     0.98     0.99       0.95     0.98     0.99
    promised in              200      195      71         200      200      200
    broken, same rows        13       23       8          0        30       22
    broken, other rows       14       18       7          0        30       19
    worst, other rows        0.9408   0.9617   0.9650     0.9604   0.9750   0.9819
    automation, other rows   0.833    0.665    0.571      0.815    0.783    0.750

Sets of 95 % held the truth in 0.9500 and 0.9500 (same rows), 0.9524 and 0.9502 (other rows).
Choosing on other rows keeps the bound for the judged answers; that the deployed probe is another
one than those that were judged is what breaks it in 30 of 200 splits with 50 categories.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.db.errors import ProbeError
from kinshelf.probe.calibrate.conformal import COVERAGE, Conformal
from kinshelf.probe.calibrate.crossfit import cross_fit
from kinshelf.probe.calibrate.hybrid import VIEW_PARAMETERS, Distributions, Predictors, joined
from kinshelf.probe.calibrate.mixture import (
    HeldOut,
    certifying_answers,
    fit_calibration,
    fit_views,
    held_out_answers,
)
from kinshelf.probe.calibrate.policy import CONFIDENCE, find_policy
from kinshelf.probe.calibrate.vote_space import fit_metric
from kinshelf.probe.fit.copies import groups_of
from kinshelf.probe.fit.data import ArrayData
from kinshelf.probe.fit.knn import ExactNeighbours
from kinshelf.probe.fit.ridge import fit_ridge
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.split import TrainingSet
from kinshelf.probe.fit.training import fit_probe

PRECISIONS = (0.95, 0.98, 0.99)
FRESH = 10_000
WIDTH = 32
SETTINGS = ProbeSettings(epochs=12, hidden=32, batch_size=64, lr=1e-2)
BLOCK = 2000


def drawn(n: int, n_classes: int, rng: np.random.Generator) -> tuple[FloatArray, IntArray]:
    """Fused embeddings (n, 2 * WIDTH) about a direction a class, some far from it, and their
    classes (n,)."""
    centres = np.random.default_rng(5).standard_normal((n_classes, 2, WIDTH))
    codes = rng.integers(0, n_classes, n)
    spread = np.exp(rng.normal(np.log(2.2 if n_classes < 10 else 1.3), 0.6, (n, 1, 1)))
    pairs = centres[codes] + spread * rng.standard_normal((n, 2, WIDTH))
    pairs /= np.linalg.norm(pairs, axis=2, keepdims=True) * np.sqrt(2)
    return pairs.reshape(n, -1).astype(np.float32), codes


def once(n: int, n_classes: int, seed: int) -> tuple[dict[str, HeldOut], Distributions, IntArray]:
    """Held-out answers of both kinds, the deployed probe's answers for fresh rows, the truth."""
    rng = np.random.default_rng(seed)
    X, y = drawn(n, n_classes, rng)
    names = tuple(f"{code:03}" for code in range(n_classes))
    rows = np.arange(n, dtype=np.int64)
    data = ArrayData(X, [names[code] for code in y])
    source = TrainingSet(data, rows, y, names, groups_of(data, rows))
    probe = fit_probe(source, SETTINGS).probe
    ridge = fit_ridge(source, SETTINGS.seed)
    found = cross_fit(source, probe, SETTINGS, ridge)
    assert found is not None
    calibration = fit_calibration(found)
    by_view = fit_views(found, calibration)
    reference = fit_metric(source, SETTINGS.seed).arrays() | ridge.ridge.arrays()
    probe = probe.replace(calibration=calibration, reference=reference | {VIEW_PARAMETERS: by_view})
    answers = {
        "same rows": held_out_answers(found, calibration, by_view).as_they_are(),
        "other rows": certifying_answers(found, SETTINGS.seed).as_they_are(),
    }
    fresh, truth = drawn(FRESH, n_classes, rng)
    predictors, neighbours = Predictors(probe, names), ExactNeighbours(X)
    parts = []
    for start in range(0, FRESH, BLOCK):
        queries = fresh[start : start + BLOCK]
        similarities, places = neighbours.kneighbors(queries, calibration.k)
        parts.append(predictors.answer(queries, similarities, y[places], X[places]))
    return answers, joined(parts), truth


def kept(answers: Distributions, truth: IntArray, threshold: float) -> float:
    """The share that is right of the answers that the deployed probe accepts."""
    agree = answers.probe.argmax(axis=1) == answers.knn.argmax(axis=1)
    accepted: BoolArray = agree & (answers.hybrid.max(axis=1) >= threshold)
    right = answers.hybrid.argmax(axis=1) == truth
    return float(right[accepted].mean()) if accepted.any() else 1.0


def figures(asked: tuple[int, int, int]) -> list[tuple[str, float, float, float]]:
    """Of one split: kind, precision wanted and kept, automation; precision 0: coverage of sets."""
    torch.set_num_threads(1)
    answers, fresh, truth = once(*asked)
    found = []
    for kind, held_out in answers.items():
        sets = Conformal.fit(held_out.given, held_out.codes).sets(fresh.hybrid)
        found.append((kind, 0.0, float(sets[np.arange(FRESH), truth].mean()), 0.0))
        for precision in PRECISIONS:
            with contextlib.suppress(ProbeError):
                policy = find_policy(held_out, precision)
                true = kept(fresh, truth, policy.threshold)
                found.append((kind, precision, true, policy.automation))
    return found


def measure(n_classes: int, n: int, splits: int, workers: int) -> None:
    """Print a table of the splits whose policy is broken, and the coverage of the sets."""
    kinds = ("same rows", "other rows")
    found: dict[tuple[str, float], list[tuple[float, float]]] = {
        (kind, precision): [] for kind in kinds for precision in (*PRECISIONS, 0.0)
    }
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for split in pool.map(figures, [(n, n_classes, seed) for seed in range(splits)]):
            for kind, precision, true, automation in split:
                found[kind, precision].append((true, automation))
    covered = {kind: [share for share, _ in found.pop((kind, 0.0))] for kind in kinds}
    print(f"\n{n_classes} categories, {n} rows, {splits} splits, confidence {CONFIDENCE:g}")
    print("calibration chosen on  precision  promised in  broken in  worst   automation")
    for (kind, precision), own in found.items():
        true = np.array([precise for precise, _ in own])
        broken = int((true < precision).sum())
        automation = np.mean([share for _, share in own]) if own else 0.0
        worst = true.min() if len(true) else np.nan
        print(
            f"{kind:21}  {precision:9.2f}  {len(own):11}  {broken:4} ({broken / splits:4.1%})"
            f"  {worst:.4f}  {automation:.3f}"
        )
    for kind, shares in covered.items():
        print(f"{kind:21}  sets of {COVERAGE:.0%} hold the truth in {np.mean(shares):.4f}")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--categories", type=int, nargs="+", default=[4, 50])
    parser.add_argument("--rows", type=int, nargs="+", default=[600, 1500])
    asked = parser.parse_args()
    started = time.perf_counter()
    for n_classes, n in zip(asked.categories, asked.rows, strict=True):
        measure(n_classes, n, asked.splits, asked.workers)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
