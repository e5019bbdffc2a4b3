"""Labels needed with `suggest` against labels in random order, on several data sets.

    python bench/suggest.py [--draws 20] [--step 10] [--sets amazon stl furniture myntra]

Of each data set a third is held out. From no labels on, `step` products at a time are labelled:
those that `suggest` names, or random ones. The predictor is the ridge, as in `suggest`. Prints the
labels that reach 90 % and 95 % of the accuracy with all labels, the mean of the draws.

Of 20 draws, ten labels at a time:

                    90 % of the final accuracy      95 %
    products        at random  suggested  fewer     at random  suggested  fewer
    amazon          28         16         44 %      47         28         40 %
    stl             72         40         45 %      109        52         52 %
    furniture       76         50         34 %      97         65         33 %
    myntra          124        51         59 %      184        78         57 %
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from catalogues import SHOPS, Catalogue, products
from numpy.typing import NDArray

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.probe.fill.suggest import choose
from kinshelf.probe.fit.data import ArrayData
from kinshelf.probe.fit.model import softmax
from kinshelf.probe.fit.ridge import SHARPNESS, Ridge, fit_ridge
from kinshelf.probe.fit.split import TrainingSet

SETS: dict[str, Callable[[], Catalogue]] = {
    "amazon": products, "stl": SHOPS["fashion"], "furniture": SHOPS["furniture"],
    "myntra": SHOPS["articles"],
}  # fmt: skip
MOST_ROWS = 3000
SHARES = (0.9, 0.95)


def fitted(whole: Catalogue, rows: IntArray, seed: int) -> tuple[Ridge | None, IntArray]:
    """The ridge of some labelled rows, and the classes that it knows."""
    known, codes = np.unique(whole.y[rows], return_inverse=True)
    if len(known) < 2:
        return None, known
    names = tuple(str(code) for code in range(len(known)))
    data = ArrayData(whole.X[rows], [names[code] for code in codes])
    places = np.arange(len(rows))
    source = TrainingSet(data, places, codes.astype(np.int64), names, places)
    return fit_ridge(source, seed).ridge, known


def accuracy(whole: Catalogue, rows: IntArray, held: IntArray, seed: int) -> float:
    ridge, known = fitted(whole, rows, seed)
    if ridge is None:
        return float((whole.y[held] == known[0]).mean())
    right = known[ridge.scores(whole.X[held]).argmax(axis=1)] == whole.y[held]
    return float(right.mean())


def suggested(whole: Catalogue, labelled: IntArray, free: IntArray, n: int, seed: int) -> IntArray:
    ridge = fitted(whole, labelled, seed)[0] if len(labelled) else None

    def predict(X: FloatArray) -> NDArray[np.float64]:
        assert ridge is not None
        return softmax(ridge.scores(X) * SHARPNESS)

    return free[choose(whole.X[free], predict if ridge else None, n, seed)[0]]


def needed(whole: Catalogue, seed: int, step: int, wanted: list[float], how: str) -> list[int]:
    """Labels until each accuracy is reached, in one draw."""
    order = np.random.default_rng(seed).permutation(len(whole.y))
    held, free = order[: len(order) // 3], order[len(order) // 3 :]
    labelled, found = np.zeros(0, dtype=np.int64), [0] * len(wanted)
    while not all(found) and len(free):
        new = free[:step] if how == "random" else suggested(whole, labelled, free, step, seed)
        labelled, free = np.concatenate([labelled, new]), free[~np.isin(free, new)]
        reached = accuracy(whole, labelled, held, seed)
        for i, least in enumerate(wanted):
            if not found[i] and reached >= least:
                found[i] = len(labelled)
    return [count or len(labelled) for count in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--step", type=int, default=10)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    asked = parser.parse_args()
    for name in asked.sets:
        whole = SETS[name]()
        whole = whole.take(np.random.default_rng(0).permutation(len(whole.y))[:MOST_ROWS])
        counts: dict[str, list[list[int]]] = {"random": [], "suggest": []}
        for seed in range(asked.draws):
            order = np.random.default_rng(seed).permutation(len(whole.y))
            cut = len(order) // 3
            final = accuracy(whole, order[cut:], order[:cut], seed)
            for how, found in counts.items():
                wanted = [share * final for share in SHARES]
                found.append(needed(whole, seed, asked.step, wanted, how))
        one, two = (np.mean(counts[how], axis=0) for how in ("random", "suggest"))
        for share, random, chosen in zip(SHARES, one, two, strict=True):
            fewer = 1 - chosen / random
            print(f"{name} {share:.0%}: {random:.0f} at random, {chosen:.0f}, {fewer:.0%} fewer",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
