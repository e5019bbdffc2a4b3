"""How fast a CUDA device encodes, what share of its matrix peak that is, and how exact it is.

    python bench/encode_gpu.py --data ../shared/amazon2020 --tokenizer ../shared/clip-tokenizer

In bfloat16, from pixels, from texts, and from files with the decoding beside it; against the
coursework's extractor on the same device, and its embeddings on the CPU in float32. `--json FILE`
keeps the figures. A full-size CLIP with random weights unless --model names another.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode import (
    PATCHES_AND_CLASS,
    Coursework,
    Products,
    agreement,
    encode,
    flops,
    machine,
    model_directory,
    overlap,
    read_products,
    timed,
)

from kinshelf.store.encode.clip.weights import read_weights
from kinshelf.store.encode.encoder import load_encoder
from kinshelf.store.encode.precision import BF16
from kinshelf.store.ingest.pictures import Preprocessor

ROUNDS = 3
PART = 512
"""Products encoded at once, while the pictures of the next ones are decoded."""


def matrix_peak() -> float:
    """Operations a second of one large product in bfloat16."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def product() -> None:
        for _ in range(10):
            torch.matmul(a, b)
        torch.cuda.synchronize()

    product()
    return 10 * 2 * 8192**3 / best(product)


def best(run: Any) -> float:
    return min(timed(run)[0] for _ in range(ROUNDS))


def exactness(directory: Path, products: Products, encoder: Any) -> dict[str, float]:
    """Against the coursework's embeddings on the CPU in float32."""
    expected, rows = Coursework(directory).encode(products), encode(encoder, products)
    found = {"overlap": overlap(expected, rows)}
    for what, a, b in zip(("images", "texts"), expected, rows, strict=True):
        found[f"{what}_cosine"], found[f"{what}_centred"] = agreement(a, b)
    return found


def by_batch(encoder: Any, pixels: list[Any], need: float, peak: float) -> dict[str, float]:
    """Images a second from pixels in the host's memory, and as a share of the peak."""
    found = {}
    for size in (64, 128, 256, 512, 1024):
        encoder._bulk.images_a_batch = size
        encoder.encode_pixels(pixels[: 2 * size])
        rate = len(pixels) / best(lambda: encoder.encode_pixels(pixels))
        found[f"images_{size}"] = rate
        print(f"images   {size:5} a batch: {rate:8,.0f}/s, {rate * need / peak:4.0%} of the peak")
    return found


def texts_by_batch(encoder: Any, texts: list[str], need: float, peak: float) -> dict[str, float]:
    found = {}
    for tokens in (4096, 16384, 65536):
        encoder._bulk.tokens_a_batch = tokens
        encoder.encode_texts(texts[:512])
        rate = len(texts) / best(lambda: encoder.encode_texts(texts))
        found[f"texts_{tokens}"] = rate
        print(f"texts    {tokens:5} tokens a batch: {rate:8,.0f}/s, {rate * need / peak:4.0%}")
    return found


def decoding(encoder: Any, data: list[bytes]) -> dict[str, float]:
    """Pictures decoded and resized a second, by threads."""
    found = {}
    for workers in (1, 2, 4, 8, 16, 32):
        if workers > 2 * (os.cpu_count() or 1):
            break
        preprocessor = Preprocessor(encoder, workers)
        rate = len(data) / best(lambda p=preprocessor: p.run(data))
        preprocessor.close()
        found[f"decode_{workers}"] = rate
        print(f"decode   {workers:5} threads: {rate:8,.0f} pictures/s")
    return found


def from_files(encoder: Any, products: Products, times: int) -> float:
    """Products a second from files, as ingest does it: the next pictures decode meanwhile."""
    files = [path.read_bytes() for path in products.pictures]
    data = {f"{i}": each for i, each in enumerate(files * times)}
    names, texts = list(data), products.texts * times
    parts = [dict.fromkeys(names[i : i + PART]) for i in range(0, len(names), PART)]
    parts = [{name: data[name] for name in part} for part in parts]
    preprocessor = Preprocessor(encoder)

    def run() -> None:
        for i, part in enumerate(parts):
            preprocessor.begin(parts[i + 1] if i + 1 < len(parts) else {})
            taken = preprocessor.take(part)
            encoder.encode_pixels([p for p in taken.values() if isinstance(p, np.ndarray)])
            encoder.encode_texts(texts[i * PART : (i + 1) * PART])

    rate = len(names) / best(run)
    preprocessor.close()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/amazon2020"))
    parser.add_argument("--tokenizer", type=Path, default=Path("../shared/clip-tokenizer"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--products", type=int, default=600)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here")
    products = read_products(arguments.data, arguments.products)
    name, peak = torch.cuda.get_device_name(), matrix_peak()
    print(f"{name}, {peak / 1e12:.0f} TFLOP/s bf16; {machine()}; {len(products.texts)} products")
    found: dict[str, Any] = {"device": name, "peak_tflops": peak / 1e12}
    with model_directory(arguments.model, arguments.tokenizer) as directory:
        found |= measure(directory, products, peak)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def measure(directory: Path, products: Products, peak: float) -> dict[str, Any]:
    encoder: Any = load_encoder(str(directory), device="cuda", precision=BF16)
    found: dict[str, Any] = exactness(directory, products, encoder)
    print("exact   ", {key: round(value, 6) for key, value in found.items()})
    data = [path.read_bytes() for path in products.pictures]
    preprocessor = Preprocessor(encoder)
    pixels = preprocessor.run(data) * 12
    preprocessor.close()
    per_image = 2.0 * read_weights(directory).parameters()[0] * PATCHES_AND_CLASS
    per_product = flops(directory, encoder, products) / len(products.texts)
    found |= by_batch(encoder, pixels, per_image, peak)
    encoder._bulk.images_a_batch = 256
    found |= texts_by_batch(encoder, products.texts * 12, per_product - per_image, peak)
    encoder._bulk.tokens_a_batch = 16384
    found |= decoding(encoder, data)
    ours = from_files(encoder, products, 6)
    coursework = Coursework(directory, "cuda")
    theirs = len(data) / best(lambda: coursework.encode(products))
    print(f"files    {ours:,.0f} products/s with the decoding beside it; the coursework on the"
          f" same device {theirs:,.0f}: {ours / theirs:.1f} x")  # fmt: skip
    return found | {"from_files": ours, "coursework": theirs}


if __name__ == "__main__":
    main()
