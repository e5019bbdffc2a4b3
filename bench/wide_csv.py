"""How quickly a wide CSV file is read, mapped and committed, beside pandas and DuckDB's COPY.

    python bench/wide_csv.py [--rows 100000] [--runs 3]

The file has the 25 columns of H&M's articles with values of our own, of a fixed seed; embeddings
are supplied, so that nothing is encoded. Prints rows a second and each reader's time as a share
of ours. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import kinshelf as ks
from kinshelf.store import AddOptions

PAIRS = (
    "product_type_no/product_type_name/130 graphical_appearance_no/graphical_appearance_name/30"
    " colour_group_code/colour_group_name/50"
    " perceived_colour_value_id/perceived_colour_value_name/8"
    " perceived_colour_master_id/perceived_colour_master_name/20 department_no/department_name/250"
    " index_code/index_name/10 index_group_no/index_group_name/5 section_no/section_name/57"
    " garment_group_no/garment_group_name/21"
)
WORDS = ("cotton", "wool", "linen", "woven", "knitted", "narrow", "wide", "long", "zip", "hem")
WIDTH = 8


def make(path: Path, rows: int) -> None:
    """A file of so many articles."""
    chance = random.Random(0)
    pairs = [pair.split("/") for pair in PAIRS.split()]
    head = ["article_id", "product_code", "prod_name", "product_group_name"]
    head += [name for pair in pairs for name in pair[:2]] + ["detail_desc"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for i in range(rows):
            kind = chance.randrange(1000)
            row = [f"0{108775000 + i}", f"0{108775 + i // 4}", " ".join(chance.sample(WORDS, 3))]
            row.append(f"Group {kind % 19}")
            for _, name, count in pairs:
                value = kind % int(count)
                row += [str(1000 + value), f"{name.split('_')[0].title()} {value}"]
            writer.writerow([*row, " ".join(chance.choices(WORDS, k=20))])


def by_kinshelf(path: Path, embeddings: Path, work: Path) -> None:
    """A new shelf of the file's products."""
    name = work / f"{time.monotonic_ns()}.shelf"
    ks.create(name, encoder="supplied").close()
    with ks.open(name) as shelf:
        shelf.add(path, AddOptions(text_embeddings=embeddings))


def by_pandas(path: Path) -> None:
    """The file as a frame of text."""
    import pandas as pd

    pd.read_csv(path, dtype=str)


def by_duckdb(path: Path, work: Path) -> None:
    """A table on disk, all of text."""
    import duckdb

    with duckdb.connect(str(work / f"{time.monotonic_ns()}.duckdb")) as db:
        db.execute("CREATE TABLE t AS SELECT * FROM read_csv(?, all_varchar = true)", [str(path)])


def seconds(work: Callable[[], None]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        path, embeddings = work / "articles.csv", work / "embeddings.npy"
        make(path, options.rows)
        rows = np.random.default_rng(0).standard_normal((options.rows, WIDTH)).astype(np.float32)
        np.save(embeddings, rows / np.linalg.norm(rows, axis=1, keepdims=True))
        readers = {
            "kinshelf add": lambda: by_kinshelf(path, embeddings, work),
            "pandas read_csv": lambda: by_pandas(path),
            "DuckDB COPY": lambda: by_duckdb(path, work),
        }
        times = [[seconds(read) for read in readers.values()] for _ in range(options.runs)]
    print(
        f"{options.rows:,} rows of 25 columns, seed 0, {platform.machine()}, {os.cpu_count()} cores"
    )
    ours = statistics.median(run[0] for run in times)
    for place, reader in enumerate(readers):
        middle = statistics.median(run[place] for run in times)
        print(f"{reader:16} {options.rows / middle:10,.0f} rows/s  {middle / ours:6.3f} of ours")


if __name__ == "__main__":
    main()
