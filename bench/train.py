"""Seconds of CPU that a fit takes, calibration and all, beside linear classifiers of scikit-learn.

    python bench/train.py [--data products|mixture|large] [--repeats 3]

One process, one thread: what is compared shares the machine's hour. `products` are the real ones
beside the repository; `large` are 8,888 rows of 40 categories at 1,024 columns, made by chance.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from catalogues import Catalogue, mixture, products
from quality import machine
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from kinshelf.probe import HybridClassifier

DATA: dict[str, Callable[[], Catalogue]] = {
    "products": products,
    "mixture": mixture,
    "large": lambda: mixture(8888, 40, 512),
}


def seconds(fit: Callable[[], object], repeats: int) -> float:
    """The least CPU time of some fits, after one that loads what is imported."""
    fit()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        fit()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    """Print a line a classifier."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=DATA, default="products")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    catalogue = DATA[asked.data]()
    X, y = catalogue.X, np.asarray(catalogue.names)
    print(f"{asked.data}: {len(y)} x {X.shape[1]}, {len(catalogue.classes)} categories;", machine())
    fits: dict[str, Callable[[], object]] = {
        "HybridClassifier": lambda: HybridClassifier(pairs=False).fit(X, y),
        "LogisticRegression": lambda: LogisticRegression(C=30, max_iter=1000).fit(X, y),
        "RidgeClassifier": lambda: RidgeClassifier(alpha=0.1).fit(X, y),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one that has not converged is timed all the same
        for name, fit in fits.items():
            print(f"{name:20} {seconds(fit, asked.repeats):7.2f} s", flush=True)


if __name__ == "__main__":
    main()
