"""How deep answers go for products whose category the shelf never had: parent or wrong leaf.

    python bench/depth.py [--precision 0.95]

Of the myntra embeddings (pictures alone; three levels) a fifth of the leaves is withheld in turn,
and a fifth of the other products is kept aside. Prints, for both, what is answered.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

import kinshelf as ks
from kinshelf.db.product import Product
from kinshelf.probe.calibrate.policy import set_policy
from kinshelf.probe.calibrate.tree import Tree, ancestry
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.train import train_shelf

FOLDER = Path(__file__).resolve().parents[2] / "shared/data/myntra_fashionclip"
LEAST, ROUNDS = 10, 5
LEVELS = ("master_category", "sub_category", "category")


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", type=float, default=0.95)
    wanted = parser.parse_args().precision
    if not FOLDER.is_dir():
        raise SystemExit(f"no embeddings at {FOLDER}: put them there")
    with (FOLDER / "products.csv").open(encoding="utf-8") as file:
        names = [" | ".join(row[level] for level in LEVELS) for row in csv.DictReader(file)]
    image = np.load(FOLDER / "image_embeddings.npy").astype(np.float32)
    counts = Counter(names)
    kept = np.array([i for i, name in enumerate(names) if counts[name] >= LEAST])
    leaves = sorted({names[i] for i in kept})
    print(f"myntra, pictures alone: {len(kept)} products of {len(leaves)} leaves")
    found: dict[str, list[dict[str, bool]]] = {"known": [], "withheld": []}
    for turn in range(ROUNDS):
        out = set(leaves[turn::ROUNDS])
        known = np.random.default_rng(turn).permutation([i for i in kept if names[i] not in out])
        aside, trained = np.split(known, [len(known) // ROUNDS])
        new = np.array([i for i in kept if names[i] in out])
        with tempfile.TemporaryDirectory() as folder:
            shelf = ks.create(Path(folder) / "a.shelf", encoder="supplied")
            products = [Product(str(i), "", category=names[i]) for i in trained]
            shelf.upsert(products, image[trained], None)
            train_shelf(shelf)
            set_policy(shelf, wanted, depth=True)
            predictor, nodes = Predictor.for_shelf(shelf), Tree([names[i] for i in trained]).nodes
            for kind, asked in (("known", aside), ("withheld", new)):
                pairs = np.hstack([image[asked], np.zeros_like(image[asked])])
                answers = predictor.predict(pairs)
                found[kind] += [
                    judged(names[i], a, nodes) for i, a in zip(asked, answers, strict=True)
                ]
    for kind, rows in found.items():
        with_parent = [row for row in rows if row["has_parent"]]
        shares = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
        print(f"{kind:9} n {len(rows)}", *(f"{name} {share:.3f}" for name, share in shares.items()))
        print(f"{'':9} deepest right node, of {len(with_parent)} whose parent is known:",
              f"{np.mean([row['deepest'] for row in with_parent]):.3f}")  # fmt: skip


def judged(true: str, answer: object, nodes: tuple[str, ...]) -> dict[str, bool]:
    """What one answer is."""
    levels = answer.levels  # type: ignore[attr-defined]
    node = levels.answer.category if levels.answer else None
    line = [name for name in ancestry(true) if name in nodes]
    wrong_leaf = levels.is_sure and node != true
    return {
        "right": node in line, "deepest": bool(line) and node == line[-1], "none": node is None,
        "wrong_leaf": wrong_leaf,
        "wrong_leaf_accepted": wrong_leaf and answer.verdict == "accept",  # type: ignore[attr-defined]
        "has_parent": len(line) >= len(LEVELS) - 1,
    }  # fmt: skip


if __name__ == "__main__":
    main()
