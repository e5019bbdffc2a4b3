"""How long the shelf's page takes at 10,000 and 100,000 products: python bench/page.py

`kinshelf serve` answers it, to one user and to four at once; every address is another one, so that
nothing is remembered. Printed are the median and the 95th percentile of the milliseconds to the
whole page, and the bytes. The products are made up (40 and 4,000 categories, brands, prices, seven
attributes), their embeddings are random.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser import served

from kinshelf import Shelf
from kinshelf.store import Product

DIMENSION, BATCH = 32, 10_000
MADE = {10_000: 40, 100_000: 4_000}
"""Categories by products."""
COLOURS = ("red", "green", "blue", "black", "white", "grün", "pink", "yellow")
WORDS = ("Wooden", "Train", "Puzzle", "Castle", "Doll", "Garden", "Chess", "Rocket", "Café", "Bear")
PAGES: dict[str, Callable[[int], str]] = {
    "all products, page": lambda i: f"page={i + 1}",
    "category": lambda i: f"f=category:Area+{i % 10}&page={i // 10 + 1}",
    "brand": lambda i: f"f=brand:Brand+{i}",
    "price": lambda i: f"f=price:{i}..{i + 10}",
    "no picture": lambda i: f"f=has_image:true&f=price:{i}..",
    "colour": lambda i: f"f=colour:{COLOURS[i % 8]}&f=price:{i}..",
    "words": lambda i: f"q={WORDS[i % 10]}+{WORDS[(i + 3) % 10]}&f=price:{i}..",
    "three facets": lambda i: f"f=category:Area+{i % 10}&f=colour:red&f=price:{i}..50&sort=-price",
    "condition": lambda i: f"where=title+ILIKE+%27%25castle%25%27+AND+price+%3E+{i}",
    "list": lambda i: f"view=list&sort=title&page={i + 1}",
}


def made(start: int, count: int, categories: int) -> list[Product]:
    """Products as a shop has them, made up."""
    rng = np.random.default_rng(start)
    of_category = rng.zipf(1.3, count) % categories
    of_brand = rng.zipf(1.4, count) % 5_000
    prices = np.round(rng.lognormal(3, 1, count), 2)
    words = rng.integers(0, len(WORDS), (count, 4))
    return [
        Product(
            f"P{i:06d}",
            title=" ".join(WORDS[w] for w in words[i - start]) + f" {i}",
            description="A thing of quality for every day. " * 4,
            category=None if i % 20 == 0 else _path(int(of_category[i - start])),
            price=None if i % 33 == 0 else float(prices[i - start]),
            brand=None if i % 9 == 0 else f"Brand {of_brand[i - start]}",
            split=("train", "val", "test")[i % 3],
            attributes={
                "colour": COLOURS[i % 8], "material": f"material {i % 30}", "pieces": i % 12,
                "url": f"https://shop.example/{i}", "weight": float(prices[i - start] / 7),
                "washable": bool(i % 2), "size": f"{i % 40} cm",
            },
        )
        for i in range(start, start + count)
    ]  # fmt: skip


def _path(number: int) -> str:
    return f"Area {number % 10} | Group {number % 100} | Kind {number}"


def fill(path: Path, count: int) -> None:
    """A shelf of them with random embeddings."""
    rng = np.random.default_rng(1)
    with Shelf.create(path) as shelf:
        for start in range(0, count, BATCH):
            pairs = rng.standard_normal((2, BATCH, DIMENSION)).astype(np.float32)
            pairs /= np.linalg.norm(pairs, axis=2, keepdims=True)
            shelf.upsert(made(start, BATCH, MADE[count]), *pairs)


def measure(url: str, page: Callable[[int], str], users: int, rounds: int) -> tuple[float, float]:
    """The median and the 95th percentile in milliseconds, of `users` who ask at once."""

    def ask(user: int) -> list[float]:
        took = []
        with httpx.Client(base_url=url, timeout=60) as client:
            for number in range(rounds):
                begun = time.perf_counter()
                client.get(
                    f"/shelf?{page(users * 100 + user * rounds + number)}"
                ).raise_for_status()
                took.append(1000 * (time.perf_counter() - begun))
        return took

    with ThreadPoolExecutor(users) as pool:
        found = [one for each in pool.map(ask, range(users)) for one in each]
    middle, high = np.percentile(found, (50, 95))
    return float(middle), float(high)


def main() -> None:
    """Fill, serve, and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, nargs="*", default=list(MADE), choices=list(MADE))
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for count in options.products:
            shelf = Path(folder) / f"{count}.shelf"
            fill(shelf, count)
            with served(shelf) as server:
                httpx.get(f"{server.url}/shelf", timeout=120).raise_for_status()
                for name, page in PAGES.items():
                    one = measure(server.url, page, 1, options.rounds)
                    four = measure(server.url, page, 4, options.rounds)
                    print(
                        f"{count:>7,} {name:20} one user: {one[0]:4.0f} median {one[1]:4.0f} p95,"
                        f" four: {four[0]:4.0f} median {four[1]:4.0f} p95",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
