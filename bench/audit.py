"""How many planted faults the audit ranks first: wrong labels, and pictures that were exchanged.

    python bench/audit.py [DIR] [--seeds 5]

DIR holds `image_embeddings.npy`, `text_embeddings.npy` and `products.csv` with the columns `id`,
`title` and `category`; by default `../shared/amazon2020/embeddings` beside the repository. Of the
products 5 % are given another category, or the picture of another: exchanged among those drawn
(`exchanged`), or one of another category (`other`). Printed is the share of them among the 5 % of
highest score; faults that were there before count against it.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from catalogues import DATA, check_there

from kinshelf import Shelf
from kinshelf.db.arrays import BoolArray, Float64Array, FloatArray, IntArray, ObjectArray
from kinshelf.probe.audit.audit import Audit, audit_shelf
from kinshelf.probe.audit.conflicts import find_conflicts
from kinshelf.probe.audit.facts import read_facts
from kinshelf.store import Product

SHARE = 0.05
WANTED = {"labels": 0.85, "exchanged": 0.90, "other": 0.90}


class Planting:
    """The catalogue, and shelves of it with faults."""

    def __init__(self, directory: Path) -> None:
        self.image, self.text = (
            np.load(directory / f"{kind}_embeddings.npy") for kind in ("image", "text")
        )
        with (directory / "products.csv").open(encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))
        self.categories = np.array([row["category"] for row in self.rows], dtype=object)

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, rng: np.random.Generator) -> IntArray:
        """The products to spoil."""
        return rng.permutation(len(self))[: round(SHARE * len(self))]

    def mislabelled(self, rng: np.random.Generator, chosen: IntArray) -> ObjectArray:
        """Categories, those of the chosen another each."""
        names = np.unique(self.categories.astype(str))
        given = self.categories.copy()
        for i in chosen:
            given[i] = rng.choice(names[names != given[i]])
        return given

    def exchanged(self, rng: np.random.Generator, chosen: IntArray, kind: str) -> FloatArray:
        """Picture embeddings, those of the chosen from another product each."""
        source = np.roll(chosen, 1)
        if kind == "other":
            others = (np.flatnonzero(self.categories != self.categories[i]) for i in chosen)
            source = np.array([rng.choice(places) for places in others])
        image = self.image.copy()
        image[chosen] = self.image[source]
        return image

    def shelf(self, folder: str, categories: ObjectArray, image: FloatArray) -> Shelf:
        products = [
            Product(row["id"], title=row["title"], category=category)
            for row, category in zip(self.rows, categories, strict=True)
        ]
        shelf = Shelf.create(Path(folder) / "bench.shelf")
        shelf.upsert(products, image, self.text)
        return shelf


def found_on_top(score: Float64Array, planted: BoolArray) -> float:
    """Share of the planted among the `SHARE` of highest score."""
    top = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")
    return float(planted[top[: math.ceil(SHARE * len(score))]].sum() / planted.sum())


def label_scores(audit: Audit) -> Float64Array:
    assert audit.labels is not None and audit.judged is not None
    score = np.full(len(audit.facts), np.nan)
    score[audit.judged.places] = audit.labels.score
    return score


def measure(data: Planting, kind: str, seed: int) -> tuple[float, float, float]:
    """Share found on top, and recall and precision of what is flagged."""
    rng = np.random.default_rng(seed)
    chosen = data.draw(rng)
    planted = np.zeros(len(data), dtype=np.bool_)
    planted[chosen] = True
    categories = data.mislabelled(rng, chosen) if kind == "labels" else data.categories
    image = data.image if kind == "labels" else data.exchanged(rng, chosen, kind)
    with tempfile.TemporaryDirectory() as folder, data.shelf(folder, categories, image) as shelf:
        if kind == "labels":
            audit = audit_shelf(shelf)
            score, flagged = label_scores(audit), label_flags(audit)
        else:
            conflicts = find_conflicts(shelf.snapshot(), read_facts(shelf.snapshot()))
            score, flagged = conflicts.score, conflicts.flagged
    hits = int((flagged & planted).sum())
    return found_on_top(score, planted), hits / len(chosen), hits / max(int(flagged.sum()), 1)


def label_flags(audit: Audit) -> BoolArray:
    assert audit.labels is not None and audit.judged is not None
    flagged = np.zeros(len(audit.facts), dtype=np.bool_)
    flagged[audit.judged.places] = audit.labels.flagged
    return flagged


def machine() -> str:
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python"
        f" {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?", default=DATA)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    check_there(arguments.directory)
    data = Planting(arguments.directory)
    print(f"{len(data)} products, {SHARE:.0%} spoilt, {arguments.seeds} seeds; {machine()}")
    print(f"{'fault':<12}{'on top':>8}{'least':>8}{'flagged':>9}{'precision':>11}{'seconds':>9}")
    fine = True
    for kind, wanted in WANTED.items():
        started = time.perf_counter()
        measured = np.array([measure(data, kind, seed) for seed in range(arguments.seeds)])
        seconds = (time.perf_counter() - started) / arguments.seeds
        top, recall, precision = measured.mean(axis=0)
        fine &= top >= wanted
        verdict = "" if top >= wanted else f"  BELOW {wanted:.2f}"
        print(
            f"{kind:<12}{top:>8.3f}{measured[:, 0].min():>8.3f}{recall:>9.3f}{precision:>11.3f}"
            f"{seconds:>9.1f}{verdict}"
        )
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
