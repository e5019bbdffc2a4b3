"""How good the answers are: probe and hybrid against the coursework's recipe, on the same folds.

    python bench/quality.py [--data products|digits|mixture] [--repeats 3]

`products` are real ones, in `../shared/amazon2020/embeddings` beside the repository. Repeated
stratified 5-fold cross-validation; intervals of paired differences are from a bootstrap over
products; coverage and size of the prediction sets are of the same answers. `bench/few.py` has
the tables of few labels and of new categories.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from catalogues import DATA, Catalogue, check_there, digits, mixture, products
from sklearn.model_selection import StratifiedKFold, train_test_split

from kinshelf.db.arrays import Float64Array, FloatArray, IntArray
from kinshelf.probe import HybridClassifier
from kinshelf.probe.calibrate.conformal import Conformal
from kinshelf.probe.calibrate.hybrid import spread
from kinshelf.probe.evaluate.metrics import aurc, ece, nll

FOLDS = 5
RESAMPLES = 1000

Answers = dict[str, Float64Array]
"""Per method, out-of-fold probabilities, (repeats, n, n_classes)."""


# -- the coursework's recipe, as its users run it --------------------------------------------------


def recipe(train: Catalogue, queries: FloatArray) -> Float64Array:
    """MLP on the concatenated unit embedding pairs: 256 hidden, ReLU, dropout 0.2, cross-entropy,
    Adam 1e-3, weight decay 1e-4, batch 64, at most 50 epochs, early stopping with patience 3 on a
    stratified 15 % of the rows, seed 42."""
    torch.manual_seed(42)
    rows = np.arange(len(train.y))
    stratify = (
        train.y
        if np.bincount(train.y).min() > 1 and len(rows) * 0.15 >= len(train.classes)
        else None
    )
    fit, held = train_test_split(rows, test_size=0.15, stratify=stratify, random_state=42)
    X, y = torch.from_numpy(train.X * np.float32(math.sqrt(2))), torch.from_numpy(train.y)
    net = torch.nn.Sequential(
        torch.nn.Linear(X.shape[1], 256),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(256, len(train.classes)),
    )
    fit_recipe(net, (X[fit], y[fit]), (X[held], y[held]))
    with torch.no_grad():
        logits = net(torch.from_numpy(queries * np.float32(math.sqrt(2))))
    return logits.double().softmax(dim=1).numpy()


Rows = tuple[torch.Tensor, torch.Tensor]


def fit_recipe(net: torch.nn.Module, train: Rows, held: Rows) -> None:
    """Leaves the weights of the epoch with the least held-out loss in `net`, in eval mode."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
    loss_of = torch.nn.CrossEntropyLoss()
    best, best_state, waited = math.inf, copy.deepcopy(net.state_dict()), 0
    for _ in range(50):
        net.train()
        for batch in torch.randperm(len(train[0])).split(64):
            optimizer.zero_grad()
            loss_of(net(train[0][batch]), train[1][batch]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            loss = loss_of(net(held[0]), held[1]).item()
        waited = 0 if loss < best else waited + 1
        if loss < best:
            best, best_state = loss, copy.deepcopy(net.state_dict())
        if waited == 3:
            break
    net.load_state_dict(best_state)
    net.eval()


# -- ours ------------------------------------------------------------------------------------------


def ours(train: Catalogue, queries: FloatArray) -> dict[str, Float64Array]:
    """Probe, neighbours and hybrid, as they are fitted, and the hybrid's prediction sets."""
    hybrid = HybridClassifier(pairs=False).fit(train.X, train.names)
    found = hybrid.distributions(queries)
    conformal = Conformal.of(hybrid.probe_.reference)
    assert conformal is not None
    p = spread(conformal.p_values(found.hybrid), found.classes, train.classes)
    methods = {"probe": found.probe, "knn": found.knn, "hybrid": found.hybrid}
    return {name: spread(m, found.classes, train.classes) for name, m in methods.items()} | {"p": p}


# -- measuring -------------------------------------------------------------------------------------


def folds(catalogue: Catalogue, repeat: int) -> Iterator[tuple[Catalogue, IntArray]]:
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=repeat)
    for train, test in splitter.split(catalogue.X, catalogue.y):
        yield Catalogue(catalogue.X[train], catalogue.y[train], catalogue.classes), test


def cross_validate(catalogue: Catalogue, repeats: int) -> tuple[Answers, dict[str, float]]:
    """Out-of-fold answers of each method, and seconds spent on the recipe and on ours."""
    shape = (repeats, len(catalogue.y), len(catalogue.classes))
    answers = {name: np.zeros(shape) for name in ("recipe", "probe", "knn", "hybrid", "p")}
    seconds = {"recipe": 0.0, "ours": 0.0}
    for repeat in range(repeats):
        for train, test in folds(catalogue, repeat):
            start = time.perf_counter()
            answers["recipe"][repeat, test] = recipe(train, catalogue.X[test])
            middle = time.perf_counter()
            for name, proba in ours(train, catalogue.X[test]).items():
                answers[name][repeat, test] = proba
            seconds["recipe"] += middle - start
            seconds["ours"] += time.perf_counter() - middle
    return answers, seconds


def accuracy(proba: Float64Array, y: IntArray) -> float:
    return float((proba.argmax(axis=1) == y).mean())


def area(proba: Float64Array, y: IntArray) -> float:
    return aurc(proba.max(axis=1), proba.argmax(axis=1) == y)


def calibration_error(proba: Float64Array, y: IntArray) -> float:
    return ece(proba.max(axis=1), proba.argmax(axis=1) == y)


MEASURES: dict[str, Callable[[Float64Array, IntArray], float]] = {
    "accuracy": accuracy,
    "nll": nll,
    "aurc": area,
    "ece": calibration_error,
}


def mean_over_repeats(measure: str, proba: Float64Array, y: IntArray) -> float:
    if measure == "ece":  # on the pooled answers: fewer would look worse than they are
        return MEASURES[measure](proba.reshape(-1, proba.shape[2]), np.tile(y, len(proba)))
    return float(np.mean([MEASURES[measure](p, y) for p in proba]))


def difference(
    measure: str, ours: Float64Array, theirs: Float64Array, y: IntArray
) -> tuple[float, float, float]:
    """Mean paired difference and its 95 % interval, products drawn with replacement."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(y), len(y))
        a, b = (mean_over_repeats(measure, p[:, rows], y[rows]) for p in (ours, theirs))
        drawn.append(a - b)
    low, high = np.quantile(drawn, [0.025, 0.975])
    mean = mean_over_repeats(measure, ours, y) - mean_over_repeats(measure, theirs, y)
    return mean, float(low), float(high)


def report(catalogue: Catalogue, answers: Answers) -> bool:
    """Prints the tables; whether probe and hybrid are not below the recipe beyond noise."""
    print(f"\n{'':8}" + "".join(f"{measure:>10}" for measure in MEASURES))
    for name, proba in answers.items():
        figures = (mean_over_repeats(measure, proba, catalogue.y) for measure in MEASURES)
        print(f"{name:8}" + "".join(f"{figure:10.4f}" for figure in figures))
    print("\nminus the recipe, paired, with 95 % interval")
    fine = True
    for name in ("probe", "hybrid"):
        for measure in MEASURES:
            mean, low, high = difference(measure, answers[name], answers["recipe"], catalogue.y)
            worse = high < 0 if measure == "accuracy" else low > 0
            fine &= not (worse and measure in ("accuracy", "nll"))
            verdict = "  WORSE" if worse else ""
            print(f"{name:8}{measure:>10} {mean:+.4f}  [{low:+.4f}, {high:+.4f}]{verdict}")
    return fine


def report_sets(p: Float64Array, y: IntArray) -> bool:
    """Prints coverage and size of the prediction sets; whether they are as asked."""
    fine = True
    for coverage in (0.9, 0.95):
        sets = p > 1 - coverage
        held = np.mean([s[np.arange(len(y)), y].mean() for s in sets])
        size = sets.sum(axis=2).mean()
        fine &= abs(held - coverage) <= 0.02 and (coverage < 0.95 or size <= 1.1)
        print(f"sets at {coverage:.0%}: coverage {held:.4f}, mean size {size:.3f}")
    return bool(fine)


def machine() -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = named[0] if named else model
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()},"
        f" torch {torch.__version__}, numpy {np.__version__}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["products", "digits", "mixture"], default="products")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.data == "products":
        check_there(DATA)
    torch.set_num_threads(1)
    catalogue = {"products": products, "digits": digits, "mixture": mixture}[arguments.data]()
    largest = np.sort(np.bincount(catalogue.y))[::-1]
    print(f"{arguments.data}: {len(catalogue.y)} x {catalogue.X.shape[1]}, {len(largest)} classes")
    print(f"of {largest[0]} to {largest[-1]}; {arguments.repeats} x stratified {FOLDS}-fold;")
    print(machine())
    answers, seconds = cross_validate(catalogue, arguments.repeats)
    p = answers.pop("p")
    fine = report(catalogue, answers)
    sets = report_sets(p, catalogue.y)
    print(
        f"\ntraining and answering: recipe {seconds['recipe']:.1f} s, ours {seconds['ours']:.1f} s"
    )
    print("not below the recipe in accuracy and NLL beyond noise:", "yes" if fine else "NO")
    print("sets within 2 points of their coverage:", "yes" if sets else "NO")
    return 0 if fine and sets else 1


if __name__ == "__main__":
    raise SystemExit(main())
