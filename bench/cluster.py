"""What the cluster's parts cost on one machine, as ratios measured side by side in one run.

    python bench/cluster.py encode --tokenizer ../shared/clip-tokenizer --data ../shared/amazon2020
    python bench/cluster.py train --scratch /tmp [--rows 1000000]
    python bench/cluster.py share --scratch /tmp

`encode`: products a second of `kinshelf encode --ray local` with one worker a core, over the better
of `encode` without Ray and `add`; a full-size CLIP with random weights in all, starting of
processes and loading of models left out (see `_rate`). `train`: peak resident
memory and seconds of `kinshelf train --from` over synthetic parts. `share`: an epoch of 2 Ray
workers over one without Ray, by batch size.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kinshelf import Shelf
from kinshelf.cluster.parts import PartCounts, part_bytes, write_once
from kinshelf.db.product import Product
from kinshelf.db.sources.parts import NAME, PartEntry, PartsManifest
from kinshelf.samples import catalogue_dir
from kinshelf.store.ingest.pipeline import Candidate

ENCODE_BAR = 0.85
MEMORY_BAR = 1.5
BIN = Path(sys.executable).parent / "kinshelf"
DIMENSION, CLASSES, PART = 512, 50, 8192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["encode", "train", "share"])
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--data", type=Path, help="folder with products.csv and images/")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--products", type=int, default=2048)
    parser.add_argument("--part-rows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precision", default="bf16")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="kinshelf-", dir=options.scratch) as name:
        {"encode": encode, "train": train, "share": share}[options.what](options, Path(name))


# ---- encode


def encode(options: argparse.Namespace, folder: Path) -> None:
    """The bar: Ray's products a second over the plain pipeline's."""
    model, source = _model(folder, options.tokenizer), _source(options, folder)
    ratios = []
    for turn in range(options.rounds):
        rates = {"add": _add_rate(folder / f"{turn}.shelf", source, model, options.precision)}
        for name, more in (("plain", []), ("ray", ["--ray", "local"])):
            out = folder / f"{name}-{turn}"
            _run("encode", source, "-o", out, "--encoder", model, "--precision", options.precision,
                 "--part-rows", options.part_rows, "--quiet", *more)  # fmt: skip
            rates[name] = _rate(out)
            shutil.rmtree(out)
        ratios.append(rates["ray"] / max(rates["plain"], rates["add"]))
        print(f"products a second: add {rates['add']:.1f}, encode {rates['plain']:.1f}, encode"
              f" --ray {rates['ray']:.1f}, over the better one {ratios[-1]:.3f}")  # fmt: skip
    _bar("Ray encoding over the plain pipelines, worst round", min(ratios), ENCODE_BAR)


def _add_rate(path: Path, source: Path, model: Path, precision: str) -> float:
    """Products a second of `add`, from its second commit on."""
    times: list[tuple[float, int]] = []
    with Shelf.create(path, encoder=str(model), precision=precision) as shelf:
        shelf.add(source, progress=lambda done, _: times.append((time.perf_counter(), done)))
    (started, first), (ended, last) = times[1], times[-1]
    return (last - first) / (ended - started)


def _model(folder: Path, tokenizer: Path | None) -> Path:
    """ViT-B/32 with random weights."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    if tokenizer is None:
        sys.exit("--tokenizer: a folder with CLIP's tokenizer and config is needed")
    directory = folder / "model"
    shutil.copytree(tokenizer, directory)
    torch.manual_seed(0)
    CLIPModel(CLIPConfig.from_pretrained(directory)).save_pretrained(directory)
    return directory


def _source(options: argparse.Namespace, folder: Path) -> Path:
    data = options.data or catalogue_dir()
    with (data / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["image"]]
    path = folder / "products.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "title", "image"])
        writer.writeheader()
        for i in range(options.products):
            row = rows[i % len(rows)]
            picture = _another(data / "images" / Path(row["image"]).name, folder / f"{i}.jpg", i)
            writer.writerow({"id": i, "title": f"{row['title']} {i}", "image": picture})
    return path


def _another(picture: Path, copy: Path, number: int) -> Path:
    """A JPEG with a comment of its own: equal files would be encoded once."""
    data, comment = picture.read_bytes(), str(number).encode()
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    copy.write_bytes(data[:2] + segment + data[2:])
    return copy


def _rate(out: Path) -> float:
    """Products a second from the first finished parts to the last, by the files' times.

    One part a worker is taken as the beginning: by then every worker has its model.
    """
    times = sorted(path.stat().st_mtime for path in out.glob("part-*.parquet"))
    workers = os.cpu_count() or 1
    part = json.loads((out / NAME).read_text())["part_rows"]
    return (len(times) - workers) * part / (times[-1] - times[workers - 1])


# ---- train


def train(options: argparse.Namespace, folder: Path) -> None:
    """The bar: resident memory of training from more vectors than that."""
    started = time.perf_counter()
    parts = _parts(folder, options.rows)
    size = sum(path.stat().st_size for path in parts.glob("*.parquet"))
    print(f"{options.rows} rows, {size / 1e9:.2f} GB, in {time.perf_counter() - started:.0f} s")
    started = time.perf_counter()
    report = _run("train", "--from", parts, "--shelf", folder / "a.shelf", "--epochs", 3,
                  "--batch-size", 1024, "--json")  # fmt: skip
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    metrics = json.loads(report)["metrics"]
    print(f"trained and calibrated in {seconds:.0f} s, held-out accuracy"
          f" {metrics['val_accuracy']:.4f}")  # fmt: skip
    verdict = "met" if peak < MEMORY_BAR else "falls short"
    print(f"peak resident memory {peak:.2f} GiB, bar {MEMORY_BAR}: {verdict}")


def _parts(folder: Path, rows: int) -> Path:
    """Parts of clustered unit embedding pairs, made a part at a time, and a shelf of their
    encoder."""
    parts = folder / "parts"
    parts.mkdir()
    entries = [_part(parts, number, size) for number, size in enumerate(_sizes(rows))]
    manifest = PartsManifest("synthetic", "synthetic", None, "clip-synthetic", DIMENSION, "float32",
                             PART, finished=True, rows=rows, products=rows,
                             parts=tuple(entries))  # fmt: skip
    (parts / NAME).write_bytes(manifest.dump())
    with Shelf.create(folder / "a.shelf", encoder="synthetic") as shelf:
        first = parts / "few"
        first.mkdir()
        few = manifest.replace(parts=(_part(first, 0, 16),), products=16)
        (first / NAME).write_bytes(few.dump())
        shelf.add(first)
    return parts


def _sizes(rows: int) -> Iterator[int]:
    yield from (min(PART, rows - start) for start in range(0, rows, PART))


def _part(folder: Path, number: int, size: int) -> PartEntry:
    rng = np.random.default_rng(number)
    centres = np.random.default_rng(0).standard_normal((CLASSES, 2, DIMENSION))
    # Sorted by category in stretches, the worst case for shuffling by blocks.
    codes = np.sort(rng.integers(0, CLASSES, size))
    pairs = centres[codes] + 4 * rng.standard_normal((size, 2, DIMENSION))
    pairs = (pairs / np.linalg.norm(pairs, axis=2, keepdims=True)).astype(np.float32)
    encoded = [
        Candidate(Product(f"{number}-{i}", category=f"class {code:02}"), i, "synthetic",
                  image=image, text=text)
        for i, (code, (image, text)) in enumerate(zip(codes, pairs, strict=True))
    ]  # fmt: skip
    name = f"part-{number:07d}.parquet"
    counts = PartCounts(name, size, size, 0)
    write_once(folder / name, part_bytes(encoded, counts, "clip-synthetic", []))
    return PartEntry(name, size, (folder / name).stat().st_size)


# ---- share


def share(options: argparse.Namespace, folder: Path) -> None:
    """No bar: when does data-parallel training pay? An epoch's seconds, by batch size."""
    parts = _parts(folder, min(options.rows, 32_768))
    for batch in (64, 1024, 8192):
        seconds = {}
        for name, more in (("plain", []), ("ray", ["--ray", "local", "--workers", 2])):
            _run("train", "--from", parts, "--shelf", folder / "a.shelf", "--epochs", 2,
                 "--batch-size", batch, "--quiet", *more)  # fmt: skip
            seconds[name] = _epoch(folder / "a.shelf")
        ratio = seconds["ray"] / seconds["plain"]
        print(f"batch {batch}: plain {seconds['plain']:.2f} s an epoch, 2 Ray workers"
              f" {seconds['ray']:.2f} s, ratio {ratio:.2f}")  # fmt: skip


def _epoch(shelf: Path) -> float:
    """Seconds of the last epoch that looked for the best one, of the newest probe."""
    newest = max((shelf / "probes").iterdir())
    with (newest / "train_log.csv").open(encoding="utf-8", newline="") as file:
        return float([row["seconds"] for row in csv.DictReader(file) if row["stage"] == "fit"][-1])


def _run(*arguments: Any) -> str:
    command = [str(BIN), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}")
    return done.stdout


def _bar(what: str, found: float, bar: float) -> None:
    print(f"{what}: {found:.3f}, bar {bar}: {'met' if found >= bar else 'falls short'}")


if __name__ == "__main__":
    main()
