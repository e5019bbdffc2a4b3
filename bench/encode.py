"""How fast products are encoded, as ratios to the coursework's extractor in one run.

    python bench/encode.py --data ../shared/amazon2020 --tokenizer ../shared/clip-tokenizer

A full-size CLIP with random weights is made in a temporary directory (or given by --model). The
coursework's way is written anew here: transformers in float32, CLIPProcessor, batches of 32 padded
to their longest text. Both ways read the same files and take turns; the best of --rounds counts.
bench/encode_gpu.py is for a CUDA device.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kinshelf.store.encode.clip.weights import read_weights
from kinshelf.store.encode.encoder import Encoder, load_encoder
from kinshelf.store.encode.precision import BF16, FLOAT32, INT8, cpu_flags, has_bf16, has_int8
from kinshelf.store.ingest.pictures import Preprocessor

BATCH = 32
TARGETS = {FLOAT32: 1.4, BF16: 3.0, INT8: 4.5}
PATCHES_AND_CLASS = 50


@dataclass(frozen=True, slots=True)
class Products:
    """Picture files and texts, row by row."""

    pictures: list[Path]
    texts: list[str]


def read_products(data: Path, count: int) -> Products:
    """The first products of the Amazon sample that have a picture."""
    with (data / "products.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:count]
    return Products([data / "images" / Path(r["image"]).name for r in rows],
                    [r["title"] for r in rows])  # fmt: skip


@contextmanager
def model_directory(given: Path | None, tokenizer: Path) -> Iterator[Path]:
    """The model to encode with: the one given, or ViT-B/32 with random weights."""
    if given:
        yield given
        return
    import torch
    from transformers import CLIPConfig, CLIPModel

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for path in tokenizer.iterdir():
            shutil.copyfile(path, directory / path.name)
        torch.manual_seed(0)
        CLIPModel(CLIPConfig.from_pretrained(directory)).save_pretrained(directory)
        yield directory


class Coursework:
    """The coursework's extractor: one pass of CLIPProcessor and CLIPModel over batches of 32."""

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        from transformers import CLIPModel, CLIPProcessor

        self._device = device
        self._model = CLIPModel.from_pretrained(directory).eval().to(device)
        self._processor = CLIPProcessor.from_pretrained(directory)

    def encode(self, products: Products) -> tuple[np.ndarray, np.ndarray]:
        parts = [self._batch(products, i) for i in range(0, len(products.texts), BATCH)]
        images, texts = zip(*parts, strict=True)
        return np.concatenate(images), np.concatenate(texts)

    def _batch(self, products: Products, start: int) -> tuple[np.ndarray, np.ndarray]:
        import torch

        part = slice(start, start + BATCH)
        images = [Image.open(path).convert("RGB") for path in products.pictures[part]]
        wanted: dict[str, Any] = {"return_tensors": "pt", "padding": True, "truncation": True}
        inputs = self._processor(text=products.texts[part], images=images, **wanted)
        inputs = inputs.to(self._device)
        with torch.no_grad():
            image = self._model.get_image_features(pixel_values=inputs["pixel_values"])
            text = self._model.get_text_features(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            )
        return _unit(image), _unit(text)


def _unit(found: Any) -> np.ndarray:
    rows = getattr(found, "pooler_output", found).cpu().numpy()
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def encode(encoder: Encoder, products: Products) -> tuple[np.ndarray, np.ndarray]:
    """Our way, from files to embeddings."""
    preprocessor = Preprocessor(encoder)
    try:
        pixels = preprocessor.run([path.read_bytes() for path in products.pictures])
    finally:
        preprocessor.close()
    good = [each for each in pixels if isinstance(each, np.ndarray)]
    return encoder.encode_pixels(good), encoder.encode_texts(products.texts)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def agreement(expected: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """Smallest cosine, and smallest after the mean embedding is subtracted."""
    a, b = expected - expected.mean(axis=0), rows - rows.mean(axis=0)
    centred = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float((expected * rows).sum(1).min()), float(centred.min())


def overlap(expected: tuple[np.ndarray, ...], rows: tuple[np.ndarray, ...]) -> float:
    """Share of each product's 10 nearest that both ways agree on."""
    nearest = []
    for pair in (expected, rows):
        fused = np.concatenate(pair, axis=1)
        similarities = fused @ fused.T
        np.fill_diagonal(similarities, -np.inf)
        nearest.append(np.argsort(-similarities, axis=1)[:, :10])
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)]))


def bulk(directory: Path, products: Products, rounds: int) -> None:
    """Every precision class against the coursework, in turns."""
    coursework = Coursework(directory)
    encoders = {name: load_encoder(str(directory), device="cpu", precision=name)
                for name in _classes()}  # fmt: skip
    best = dict.fromkeys(["coursework", *encoders], float("inf"))
    ratios: dict[str, list[float]] = {name: [] for name in encoders}
    found: dict[str, tuple[np.ndarray, ...]] = {}
    for _ in range(rounds):
        seconds, found["coursework"] = timed(lambda: coursework.encode(products))
        best["coursework"] = min(best["coursework"], seconds)
        for name, encoder in encoders.items():
            ours, found[name] = timed(lambda e=encoder: encode(e, products))
            best[name] = min(best[name], ours)
            ratios[name].append(seconds / ours)
    count = len(products.texts)
    print(f"coursework  {count / best['coursework']:6.1f} products/s")
    for name, encoder in encoders.items():
        _report(name, count, best, ratios[name], found, encoder, directory, products)


def _classes() -> list[str]:
    flags = cpu_flags()
    if not has_bf16(flags):
        print("bf16        not measured: this processor has no AVX512-BF16 and no AMX")
    return [FLOAT32] + [BF16] * has_bf16(flags) + [INT8] * has_int8(flags)


def _report(
    name: str, count: int, best: dict[str, float], ratios: list[float],
    found: dict[str, tuple[np.ndarray, ...]], encoder: Encoder, directory: Path,
    products: Products,
) -> None:  # fmt: skip
    rate, ratio = count / best[name], best["coursework"] / best[name]
    print(f"{name:<11} {rate:6.1f} products/s, {ratio:.2f} x (rounds"
          f" {', '.join(f'{r:.2f}' for r in ratios)}); wanted {TARGETS[name]} x")  # fmt: skip
    peak = gemm_peak(name) * 2
    need = flops(directory, encoder, products) / count
    print(f"{'':<11} {need * rate / peak:6.0%} of the matrix peak ({peak / 1e9:.0f} GFLOP/s)")
    for what, a, b in zip(("images", "texts"), found["coursework"], found[name], strict=True):
        print(f"{'':<11} {what}: cosine min %.6f, centred %.4f" % agreement(a, b))
    print(f"{'':<11} nearest-10 overlap {overlap(found['coursework'], found[name]):.4f}")


def flops(directory: Path, encoder: Encoder, products: Products) -> float:
    """Of the linear layers, for all products, with no padding."""
    from kinshelf.store.encode.tokenizer import Tokens

    vision, text = read_weights(directory).parameters()
    tokens = sum(map(len, Tokens(directory, 77).ids(products.texts)))
    return 2.0 * (vision * PATCHES_AND_CLASS * len(products.texts) + text * tokens)


def gemm_peak(precision: str) -> float:
    """Operations a second of one core in the vision tower's largest product."""
    import torch

    from kinshelf.store.encode.clip.torch_linear import linear

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    x, weight = torch.randn(800, 768), torch.randn(3072, 768)
    apply = linear(weight, torch.zeros(3072), precision)
    best = min(timed(lambda: apply(x))[0] for _ in range(20))
    torch.set_num_threads(before)
    return 2 * x.numel() * len(weight) / best


def preprocessing(directory: Path, products: Products, rounds: int) -> None:
    """Pixels on one thread: our rate and error against CLIPProcessor's."""
    import torch
    from transformers import CLIPImageProcessor

    from kinshelf.store.encode.image_processor import read_preprocessing

    torch.set_num_threads(1)
    ours, theirs = read_preprocessing(directory), CLIPImageProcessor.from_pretrained(directory)
    images = [Image.open(path).convert("RGB") for path in products.pictures[:64]]
    ratios = []
    for _ in range(rounds):
        slow, expected = timed(
            lambda: [theirs(i, return_tensors="np")["pixel_values"][0] for i in images]
        )
        levels, pixels = timed(lambda: [ours.pixels(i) for i in images])
        floats, got = timed(lambda p=pixels: ours.normalised(p))
        ratios.append((slow / levels, slow / (levels + floats)))
    error = max(np.abs(a - b).max() for a, b in zip(expected, got, strict=True))
    ingest, whole = (float(np.median(each)) for each in zip(*ratios, strict=True))
    print(f"preprocess  {ingest:.2f} x CLIPProcessor on one thread as ingest does it (levels; the"
          f" rest is in the weights), {whole:.2f} x with its floats; wanted 1.4 x; largest error"
          f" {error:.1e}")  # fmt: skip


INFER = """
import sys, torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor
model, processor = (c.from_pretrained(sys.argv[1]) for c in (CLIPModel, CLIPProcessor))
image = Image.open(sys.argv[2]).convert('RGB')
inputs = processor(text=[sys.argv[3]], images=[image], return_tensors='pt', padding=True)
with torch.no_grad():
    image = model.get_image_features(pixel_values=inputs['pixel_values'])
    text = model.get_text_features(input_ids=inputs['input_ids'])
head = torch.nn.Sequential(torch.nn.Linear(1024, 512), torch.nn.ReLU(), torch.nn.Linear(512, 4))
rows = [getattr(r, 'pooler_output', r) for r in (image, text)]
print(head(torch.cat(rows, 1)).softmax(1))
"""


def one_shot(directory: Path, data: Path, products: Products, rounds: int) -> None:
    """Whole processes: `kinshelf classify --image --text` against the coursework's infer."""
    with tempfile.TemporaryDirectory() as folder:
        shelf = Path(folder) / "bench.shelf"
        kinshelf = [sys.executable, "-m", "kinshelf.cli"]
        _quiet([*kinshelf, "init", "--encoder", str(directory), "--shelf", str(shelf),
                "--precision", "float32"])  # fmt: skip
        _quiet([*kinshelf, "add", str(_labelled(data, Path(folder))), "--shelf", str(shelf)])
        _quiet([*kinshelf, "train", "--shelf", str(shelf)])
        picture, text = str(products.pictures[0]), products.texts[0]
        ask = [*kinshelf, "classify", "--image", picture, "--text", text, "--shelf", str(shelf)]
        infer = [sys.executable, "-c", INFER, str(directory), picture, text]
        pairs = [(timed(lambda: _quiet(infer))[0], timed(lambda: _quiet(ask))[0])
                 for _ in range(rounds)]  # fmt: skip
    slow, quick = (min(each) for each in zip(*pairs, strict=True))
    print(f"one-shot    {quick:.2f} s against {slow:.2f} s: {slow / quick:.1f} x"
          " (wanted 4 x and under 1.3 s)")  # fmt: skip


def _labelled(data: Path, folder: Path) -> Path:
    with (data / "products.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["category"]][:40]
    for row in rows:
        row["image"] = str((data / "images" / Path(row["image"]).name).resolve())
    path = folder / "labelled.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _quiet(command: list[str]) -> None:
    # As installed: where Python may not write compiled modules, ours would be compiled each time.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, capture_output=True, env=environment)


TINY = Path(__file__).parent.parent / "samples" / "tiny-clip"


def memory(directory: Path, products: Products, few: int, many: int) -> None:
    """Peak memory of `kinshelf add` of few and of many products.

    Once with the full-size model and the products repeated, once with the sample's tiny CLIP, so
    that the pipeline shows, and no two pictures or texts the same.
    """
    for name, model, distinct in (("full-size", directory, False), ("tiny", TINY, True)):
        with tempfile.TemporaryDirectory() as folder:
            peaks = []
            for count in (few, many):
                source = _many(products, count, Path(folder) / str(count), distinct=distinct)
                peaks.append(_peak_of_add(source, model, Path(folder) / f"{count}.shelf"))
        print(f"memory      {name} model, {'distinct' if distinct else 'repeated'} products:"
              f" {peaks[0]:.0f} MiB for {few}, {peaks[1]:.0f} MiB for {many},"
              f" {peaks[1] / peaks[0] - 1:+.0%} (wanted at most +15%)")  # fmt: skip


def _many(products: Products, count: int, folder: Path, *, distinct: bool) -> Path:
    """A CSV of `count` products; what follows a JPEG's end makes each file another picture."""
    folder.mkdir()
    small = []
    for path in products.pictures:
        with Image.open(path) as image:
            thumbnail = image.convert("RGB").resize((96, 96))
        buffer = BytesIO()
        thumbnail.save(buffer, "JPEG")
        small.append(buffer.getvalue())
    with (folder / "products.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "category", "image"])
        for i in range(count):
            same = i % len(small)
            image_path = folder / f"{i if distinct else same}.jpg"
            if distinct or i == same:
                image_path.write_bytes(small[same] + i.to_bytes(4, "big"))
            title = products.texts[same] + f" no. {i}" * distinct
            writer.writerow([i, title, f"category {i % 20}", image_path])
    return folder / "products.csv"


_WITH_PEAK = """
import sys
from kinshelf.cli import main
try:
    main(sys.argv[1:])
finally:
    lines = open("/proc/self/status").read().splitlines()
    print("peak", next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def _peak_of_add(source: Path, model: Path, shelf: Path) -> float:
    """MiB. By the process's own account: what `wait4` tells begins with the parent's size."""
    _quiet([sys.executable, "-m", "kinshelf.cli", "init", "--encoder", str(model),
            "--shelf", str(shelf)])  # fmt: skip
    command = [sys.executable, "-c", _WITH_PEAK, "add", str(source), "--quiet",
               "--shelf", str(shelf)]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/amazon2020"))
    parser.add_argument("--tokenizer", type=Path, default=Path("../shared/clip-tokenizer"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--products", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=60_000, help="products of the memory part")
    parts = ("bulk", "preprocess", "one-shot", "memory")
    parser.add_argument("--only", choices=parts, action="append")
    arguments = parser.parse_args()
    wanted = arguments.only or ["bulk", "preprocess", "one-shot"]
    products = read_products(arguments.data, arguments.products)
    print(f"{machine()}; {len(products.texts)} products")
    with model_directory(arguments.model, arguments.tokenizer) as directory:
        if "bulk" in wanted:
            bulk(directory, products, arguments.rounds)
        if "preprocess" in wanted:
            preprocessing(directory, products, arguments.rounds)
        if "one-shot" in wanted:
            one_shot(directory, arguments.data, products, arguments.rounds)
        if "memory" in wanted:
            memory(directory, products, 600, arguments.many)


def machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores{load}"


if __name__ == "__main__":
    main()
