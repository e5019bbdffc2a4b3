"""The page over a small shelf in this process, and what a page of it shows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
from conftest import FakeEncoder, unit
from fastapi.testclient import TestClient
from serve_world import settings_for

from kinshelf import Shelf
from kinshelf.db.product import Product
from kinshelf.serve.app import create_app

ODD = "o'd\"d: <b> | %"
CATEGORIES = ("Toys | Vintage", "Cards | Vintage", "Toys | Dolls | Rag", None)


def made(i: int) -> Product:
    return Product(
        f"p{i:03d}", f"{('Red', 'Blue')[i % 2]} thing {i}", f"Nr {i}", CATEGORIES[i % 4],
        price=None if i % 5 == 0 else i * 1.5, brand=(ODD, "Größe", None)[i % 3],
        split=("train", "val")[i % 2],
        attributes={"colour": ("red", "blue")[i % 2], "pieces": i % 3, "new": i % 6 == 0,
                    ODD: f"k{i % 2}"},
    )  # fmt: skip


PRODUCTS = [made(i) for i in range(120)]


def make(path: Path) -> Path:
    rows = unit(np.random.default_rng(0).standard_normal((len(PRODUCTS), 16)))
    Shelf.create(path, encoder="fake").close()
    with Shelf.open(path, encoder=FakeEncoder()) as shelf:
        shelf.upsert(PRODUCTS, rows, rows)
    return path


@contextlib.contextmanager
def opened(path: Path, **changes: Any) -> Iterator[TestClient]:
    app = create_app(settings_for(path, **changes), encoder=FakeEncoder())
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        yield client


def ids(page: str) -> list[str]:
    return re.findall(r'type="checkbox" name="id" value="([^"]*)"', page)


def links(page: str) -> dict[str, tuple[str, int]]:
    """The address and the count of each value in the sidebar, by its words."""
    found = re.findall(
        r'<a href="([^"]*)"[^>]*>([^<]*)</a> <span class="dim n">([\d,]+)</span>', page
    )
    return {unescape(w): (unescape(h), int(n.replace(",", ""))) for h, w, n in found}


def text_of(page: str) -> str:
    """The words of the main part, without tags."""
    main = page.partition("<main")[2].partition("</footer>")[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", main)).split())
