"""Ctrl-C at random moments of the commands."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
from faults.world import findings

from kinshelf import Shelf
from kinshelf.store import AddOptions

ROWS, WIDTH = 400, 16
LIMIT = 10.0
"""Seconds that a command may take to end after Ctrl-C."""


def make(directory: Path) -> Path:
    """A shelf, and a source beside it that a command may add."""
    random = np.random.default_rng(0)
    with (directory / "more.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "category"])
        writer.writerows([f"m{i}", f"thing {i}", f"c{i % 4}"] for i in range(ROWS))
    for name in ("image", "text"):
        rows = random.standard_normal((ROWS, WIDTH)).astype(np.float32)
        np.save(directory / f"{name}.npy", rows)
    path = directory / "interrupted.shelf"
    Shelf.create(path, encoder="supplied").close()
    with Shelf.open(path) as shelf:
        shelf.add(directory / "more.csv", options(directory))
    return path


def options(directory: Path) -> AddOptions:
    image, text = directory / "image.npy", directory / "text.npy"
    return AddOptions(image_embeddings=image, text_embeddings=text)


def commands(directory: Path) -> list[list[str]]:
    """What is interrupted; the order is that of the runs."""
    supplied = ["--image-embeddings", "image.npy", "--text-embeddings", "text.npy"]
    found = [
        ["add", "more.csv", *supplied],
        ["train", "--epochs", "200"],
        ["similar", "--id", "m1"],
        ["verify"],
        ["compact"],
        ["export", "out.parquet"],
        ["list"],
        ["info"],
    ]
    return [
        [sys.executable, "-m", "kinshelf.cli", *c, "--shelf", "interrupted.shelf"] for c in found
    ]


def run(directory: Path, seed: str, times: int) -> Counter[str]:
    """Interrupt so many commands. Raises AssertionError for a late exit or a broken shelf."""
    # a shell lets what it runs in the background ignore Ctrl-C, and children inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path, random, outcomes = make(directory), Random(seed), Counter[str]()
    lines = commands(directory)
    longest = [4.0] * len(lines)
    for number in range(times):
        which = number % len(lines)
        if which == 0:
            _unmake(path)
        delay = random.random() * longest[which]
        code, seconds, errors = _interrupt(directory, lines[which], delay)
        name = lines[which][3]
        assert seconds < LIMIT, f"{name}: took {seconds:.1f} s to end after Ctrl-C"
        assert "Traceback" not in errors or delay < 1.5, f"{name} after {delay:.2f} s: {errors}"
        outcomes[f"{name}: {'done' if code == 0 else 'interrupted'}"] += 1
        with Shelf.open(path) as shelf:
            assert not findings(shelf), (name, delay, findings(shelf))
    return outcomes


def _unmake(path: Path) -> None:
    """Take some products away, so that `add` has something to do."""
    with Shelf.open(path) as shelf:
        ids = [p.product.id for p in shelf.snapshot().select(offset=ROWS // 2)]
        shelf.remove(ids)


def _interrupt(directory: Path, line: list[str], delay: float) -> tuple[int, float, str]:
    environment = os.environ | {"KINSHELF_SHELF": "interrupted.shelf"}
    child = subprocess.Popen(
        line, cwd=directory, env=environment, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        child.wait(timeout=delay)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, errors = child.communicate(timeout=LIMIT * 3)
    return child.returncode, time.monotonic() - started, errors
