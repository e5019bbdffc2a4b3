"""Few labels, and categories that come after the training.

    python bench/few.py [--only labels|categories] [--repeats 8]

`labels`: 1 to 32 labels a category, the rest judged; recipe, probe, neighbours and hybrid.
`categories`: each category is left out of the training, then 5 or 20 of its products are added
without training again; how many of its others are found, and what that costs the known ones.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from catalogues import DATA, Catalogue, check_there, products
from quality import accuracy, fit_recipe, machine

from kinshelf.db.arrays import Float64Array, FloatArray
from kinshelf.probe import HybridClassifier

LABELS = (1, 2, 4, 8, 16, 32)
ADDED = (5, 20)


def recipe(train: Catalogue, queries: FloatArray) -> Float64Array:
    """The recipe where there is too little to hold out: it stops by its own training rows."""
    torch.manual_seed(42)
    scale = np.float32(math.sqrt(2))
    rows = torch.from_numpy(train.X * scale), torch.from_numpy(train.y)
    net = torch.nn.Sequential(
        torch.nn.Linear(train.X.shape[1], 256),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(256, len(train.classes)),
    )
    fit_recipe(net, rows, rows)
    with torch.no_grad():
        return net(torch.from_numpy(queries * scale)).double().softmax(dim=1).numpy()


def few_labels(catalogue: Catalogue, repeats: int) -> bool:
    print(f"\naccuracy by labels a category, mean of {repeats} draws")
    print("labels    recipe     probe       knn    hybrid")
    fine = True
    for n in LABELS:
        found = np.array([_few(catalogue, n, seed) for seed in range(repeats)])
        mean = found.mean(axis=0)
        below = max(mean[1], mean[2]) - mean[3] > 0.005 or (n <= 4 and mean[3] < mean[0] - 0.005)
        fine &= not below
        print(f"{n:6}" + "".join(f"{value:10.4f}" for value in mean) + ("  BELOW" if below else ""))
    return fine


def _few(catalogue: Catalogue, n: int, seed: int) -> list[float]:
    order = np.random.default_rng(seed).permutation(len(catalogue.y))
    own = [order[catalogue.y[order] == c][:n] for c in range(len(catalogue.classes))]
    train = catalogue.take(np.concatenate(own))
    test = catalogue.take(np.setdiff1d(order, np.concatenate(own)))
    predicted = HybridClassifier(pairs=False).fit(train.X, train.names).distributions(test.X)
    answers = [recipe(train, test.X), predicted.probe, predicted.knn, predicted.hybrid]
    return [accuracy(answer, test.y) for answer in answers]


def new_categories(catalogue: Catalogue, repeats: int) -> bool:
    print(f"\na category left out, then some of its products added; mean of {repeats} draws")
    print("added   found   by category" + " " * 19 + "lost of the known")
    fine = True
    found = np.array(
        [
            [_arrive(catalogue, left_out, seed) for seed in range(repeats)]
            for left_out in range(len(catalogue.classes))
        ]
    ).mean(axis=1)
    for i, (n, bar) in enumerate(zip(ADDED, (0.75, 0.90), strict=True)):
        own, lost = found[:, i, 0], found[:, i, 1].mean()
        fine &= own.mean() >= bar and lost <= 0.01
        each = " ".join(f"{value:.3f}" for value in own)
        print(f"{n:5} {own.mean():7.3f}   {each:30} {lost:.4f}")
    return bool(fine)


def _arrive(catalogue: Catalogue, left_out: int, seed: int) -> list[list[float]]:
    """Per number added: share of the others found, accuracy lost on held-out known products."""
    rng = np.random.default_rng(seed)
    known = rng.permutation(np.flatnonzero(catalogue.y != left_out))
    new = rng.permutation(np.flatnonzero(catalogue.y == left_out))
    cut = len(known) // 5
    test, train = catalogue.take(known[:cut]), catalogue.take(known[cut:])
    model = HybridClassifier(pairs=False).fit(train.X, train.names)
    before = np.mean(model.predict(test.X) == test.names)
    figures, had = [], 0
    for n in ADDED:
        added = catalogue.take(new[had:n])
        model.add(added.X, added.names)
        others = catalogue.take(new[max(ADDED) :])
        own = np.mean(model.predict(others.X) == others.names)
        figures.append([float(own), float(before - np.mean(model.predict(test.X) == test.names))])
        had = n
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["labels", "categories"])
    parser.add_argument("--repeats", type=int, default=8)
    arguments = parser.parse_args()
    check_there(DATA)
    torch.set_num_threads(1)
    catalogue = products()
    print(machine())
    fine = True
    if arguments.only != "categories":
        fine &= few_labels(catalogue, arguments.repeats)
    if arguments.only != "labels":
        fine &= new_categories(catalogue, arguments.repeats)
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
