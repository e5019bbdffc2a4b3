"""Whether words find pictures: `similar --text ... --against image|both` on three sets.

    python bench/words.py

`amazon` and `myntra` are real embeddings beside the repository (`../shared`), `sample` is the
shipped catalogue with the tiny CLIP. Each product's title asks for its own picture among all; its
title, and those of its fold of five, are not on the shelf then. With half of the titles gone, both
kinds of product are to be found by one list. On the sample, nouns and colours ask for what the
generator painted: the share of the ten found that are of the right concept.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kinshelf import Shelf
from kinshelf.samples import catalogue_dir, tiny_clip_dir
from kinshelf.samples.generator.concepts import CONCEPTS
from kinshelf.store.similar.cross import CrossModal, Space

SHARED = Path(__file__).resolve().parents[2] / "shared"
REAL = {"amazon": "amazon2020/embeddings", "myntra": "data/myntra_fashionclip"}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def sets(sample: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for name, folder in REAL.items():
        if (SHARED / folder).is_dir():
            halves = (np.load(SHARED / folder / f"{h}_embeddings.npy") for h in ("image", "text"))
            yield name, *(unit(half).astype(np.float32) for half in halves)
    image, text = np.split(sample, 2, axis=1)
    both = image.any(axis=1) & text.any(axis=1)
    first = np.unique(image[both], axis=0, return_index=True)[1]  # copies have no own picture
    yield "sample", image[both][first], text[both][first]


def recalls(scores: np.ndarray, own: np.ndarray) -> list[float]:
    above = (scores > scores[np.arange(len(scores)), own][:, None]).sum(axis=1)
    return [float((above < k).mean()) for k in (1, 10)]


def scored(queries: np.ndarray, pairs: np.ndarray, against: Any, weight: float = 0.5) -> np.ndarray:
    rows = np.arange(len(pairs))
    space = Space(rows, pairs)
    asked = (CrossModal(query, 1, against, weight, space) for query in queries)
    return np.stack([each.score(rows, pairs).scores for each in asked])


def own_picture(image: np.ndarray, text: np.ndarray) -> None:
    folds = np.array_split(np.random.default_rng(0).permutation(len(image)), 5)
    names = ("plain cosine", "each half centred", "kinshelf, --against image")
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(image)), fold)
        titles = text.copy()
        titles[fold] = 0
        centred = unit(text[fold] - text[rest].mean(axis=0)) @ unit(image - image.mean(axis=0)).T
        ours = scored(text[fold], np.hstack([image, titles]), "image")
        for name, scores in zip(names, (text[fold] @ image.T, centred, ours), strict=True):
            found[name] += [recalls(scores, fold)] * len(fold)
    for name, each in found.items():
        print("  {:32} {:.3f} {:.3f}".format(name, *np.mean(each, axis=0)))


def half_titled(image: np.ndarray, text: np.ndarray) -> None:
    """Titles of the untitled, and titles moved by noise of the titled, ask for their products."""
    random = np.random.default_rng(0)
    titled = random.random(len(image)) < 0.5
    asked = unit(text + 1.2 / np.sqrt(text.shape[1]) * random.standard_normal(text.shape))
    asked = np.where(titled[:, None], asked, text).astype(np.float32)
    pairs = np.hstack([image, np.where(titled[:, None], text, 0)])
    by_text = np.where(titled, asked @ text.T, -1)
    ranks = [(-each).argsort(axis=1).argsort(axis=1) for each in (by_text, asked @ image.T)]
    methods = {
        "titles alone": by_text,
        "reciprocal rank fusion": sum(1.0 / (60 + rank) for rank in ranks),
        **{f"kinshelf, both, weight {w}": scored(asked, pairs, "both", w) for w in (0.3, 0.5, 0.7)},
    }
    for name, scores in methods.items():
        line = [recalls(scores[side], np.flatnonzero(side)) for side in (~titled, titled)]
        print(
            "  {:32} untitled {:.3f} {:.3f}  titled {:.3f} {:.3f}".format(name, *line[0], *line[1])
        )


def concepts(pairs: np.ndarray, ids: list[str], encode: Any) -> None:
    """What the generator painted, asked for by noun, and by colour and noun."""
    with (catalogue_dir() / "products.csv").open(encoding="utf-8") as file:
        colours = {row["id"]: row["colour"] for row in csv.DictReader(file)}
    with (catalogue_dir() / "truth.csv").open(encoding="utf-8") as file:
        truth = {row["id"]: row["true_category"] for row in csv.DictReader(file)}
    colour, category = (np.array([table[one] for one in ids]) for table in (colours, truth))
    kinds: dict[str, dict[str, np.ndarray]] = {"noun": {}, "colour and noun": {}}
    for concept in (c for c in CONCEPTS.values() if c.category):
        right = category == concept.category
        for noun in sorted({n.lower() for nouns in concept.kinds.values() for n in nouns}):
            kinds["noun"][noun] = right
            for shade in concept.colours:
                if np.count_nonzero(right & (colour == shade)) >= 3:
                    kinds["colour and noun"][f"{shade} {noun}"] = right & (colour == shade)
    for share in (0.0, 0.5, 1.0):
        image, text = np.split(pairs.copy(), 2, axis=1)
        text[np.random.default_rng(0).random(len(text)) < share] = 0
        for kind, wanted in kinds.items():
            queries, right = unit(encode(list(wanted))), np.stack(list(wanted.values()))
            both = scored(queries, np.hstack([image, text]), "both")
            line = [
                ("titles alone", np.where(text.any(axis=1), queries @ text.T, 0)),
                ("pictures alone", np.where(image.any(axis=1), queries @ image.T, -1)),
                ("both", both),
            ]
            shown = " ".join(f"{name} {_right(each, right):.3f}" for name, each in line)
            print(f"  {share:.0%} without title, {kind}: {shown} chance {right.mean():.3f}")


def _right(scores: np.ndarray, right: np.ndarray) -> float:
    top = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    hits = np.take_along_axis(right, top, axis=1).sum(axis=1)
    return float((hits / np.minimum(10, right.sum(axis=1))).mean())


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Shelf.create(Path(folder) / "sample.shelf", encoder=str(tiny_clip_dir())) as shelf,
    ):
        shelf.add(catalogue_dir() / "products.csv")
        stored = shelf.snapshot().select()
        sample = shelf.snapshot().pairs([one.row for one in stored])
        for name, image, text in sets(sample):
            print(f"{name}, {len(image)} products: a title finds its own picture, recall@1 @10")
            own_picture(image, text)
            print(f"{name}: half of the titles gone, recall@1 @10")
            half_titled(image, text)
        print(f"sample, {len(stored)} products: share of the right concept among the first 10")
        concepts(sample, [one.product.id for one in stored], shelf.encoder.encode_texts)


if __name__ == "__main__":
    main()
