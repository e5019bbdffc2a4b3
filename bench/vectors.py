"""The vectors of the search benchmarks: kinds of them, made around embeddings that are named.

A kind is a maker and a source, such as `blends of amazon2020`. The digest that is printed with it
is of the source's embeddings: figures of different data are not comparable.
"""

from __future__ import annotations

import argparse
import csv
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

SHARED = Path(__file__).resolve().parents[2] / "shared"
WIDTH = 512
BATCH = 4096
SOURCES = ("amazon2020", "gaussian")


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Known:
    """Embedding pairs (n, 2, WIDTH) and a group (n,) of each."""

    pairs: np.ndarray
    groups: np.ndarray

    @functools.cached_property
    def digest(self) -> str:
        """Eight digits, of all of it."""
        digest = xxhash.xxh3_64(np.ascontiguousarray(self.pairs).data)
        digest.update(np.ascontiguousarray(self.groups, dtype=np.int64).data)
        return digest.hexdigest()[:8]


@functools.cache
def known(source: str) -> Known:
    """The embeddings of a source. Exits with an error where they are not at hand."""
    if source == "gaussian":
        random = np.random.default_rng(7)
        groups = random.integers(0, 4, 800)
        centres = random.standard_normal((4, 2, WIDTH))
        return Known(unit(centres[groups] + random.standard_normal((800, 2, WIDTH))), groups)
    directory = SHARED / source / "embeddings"
    if not directory.is_dir():
        raise SystemExit(
            f"no embeddings at {directory}: put them there, or ask for --source gaussian, which is"
            " other data"
        )
    pairs = [np.load(directory / f"{name}_embeddings.npy") for name in ("image", "text")]
    with (directory / "products.csv").open(encoding="utf-8") as file:
        names = [row.get("category", "") for row in csv.DictReader(file)]
    return Known(unit(np.stack(pairs, axis=1)), np.unique(names, return_inverse=True)[1])


@dataclass(frozen=True)
class Kind:
    """Vectors of a maker around the embeddings of a source."""

    maker: str = "blends"
    source: str = "amazon2020"

    def __str__(self) -> str:
        return f"{self.maker} of {self.source} ({known(self.source).digest})"

    def vectors(self, count: int, seed: int) -> np.ndarray:
        """Embedding pairs (count, 2, WIDTH) like those that are known, and none of them."""
        of, random = known(self.source), np.random.default_rng(seed)
        made = np.empty((count, 2, WIDTH), dtype=np.float32)
        for at in range(0, count, BATCH):
            part = slice(at, min(at + BATCH, count))
            made[part] = MAKERS[self.maker](of.pairs, of.groups, random, part.stop - part.start)
        return unit(made)


def noise(random: np.random.Generator, count: int) -> np.ndarray:
    return random.standard_normal((count, 2, WIDTH), dtype=np.float32) / np.sqrt(WIDTH)


def clusters(
    known: np.ndarray, _groups: np.ndarray, random: np.random.Generator, count: int
) -> np.ndarray:
    """One product each, and noise of half its length."""
    return known[random.integers(0, len(known), count)] + 0.5 * noise(random, count)


def blends(
    known: np.ndarray, groups: np.ndarray, random: np.random.Generator, count: int
) -> np.ndarray:
    """Two products of one group, mixed, and noise of uneven length."""
    one = random.integers(0, len(known), count)
    members = [np.flatnonzero(groups == g) for g in range(groups.max() + 1)]
    other = np.array([random.choice(members[groups[i]]) for i in one])
    share, length = random.uniform((0.5, 0.2), (1, 0.8), (count, 2)).T[:, :, None, None]
    return share * known[one] + (1 - share) * known[other] + length * noise(random, count)


def smooth(
    known: np.ndarray, groups: np.ndarray, random: np.random.Generator, count: int
) -> np.ndarray:
    """A Gaussian of each group's own covariance: no clusters at all."""
    made = np.empty((count, 2, WIDTH), dtype=np.float32)
    chosen = groups[random.integers(0, len(known), count)]
    for group in np.unique(chosen):
        rows = known[groups == group]
        centred = (rows - rows.mean(axis=0)) / np.sqrt(len(rows))
        mix = random.standard_normal((int((chosen == group).sum()), len(rows)))
        made[chosen == group] = rows.mean(axis=0) + np.tensordot(mix, centred, 1)
    return made


MAKERS = {"clusters": clusters, "blends": blends, "smooth": smooth}


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--data` and `--source`, several of each."""
    parser.add_argument("--data", nargs="+", choices=sorted(MAKERS), default=["blends"])
    parser.add_argument("--source", nargs="+", choices=SOURCES, default=["amazon2020"])


def kinds(options: argparse.Namespace) -> list[Kind]:
    """Every maker of every source that was asked for; exits where a source is not at hand."""
    found = [Kind(maker, source) for source in options.source for maker in options.data]
    for kind in found:
        known(kind.source)
    return found
