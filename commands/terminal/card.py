"""The evidence card and other answers, drawn for the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kinshelf.commands.terminal.tables import plain_table, rows_table
from kinshelf.db.text import percent
from kinshelf.probe.predict.wording import chosen_evidence, leaf, notes, predictors, reason

if TYPE_CHECKING:
    from kinshelf.db.product import Product
    from kinshelf.probe.predict.prediction import Prediction
    from kinshelf.store import Neighbour
    from kinshelf.store.results import SearchResult

_COLOURS = {"accept": "green", "review": "yellow", "conflict": "red", "novel": "magenta"}
_MARKS = {"supports": ("for", "green"), "runner-up": ("against", "red"), "other": ("other", "dim")}

_PATH = 48
"""Characters of a picture's path that stay in one line."""


def evidence_card(found: Prediction) -> Panel:
    """Verdict and reason, then the neighbours for and against, then the numbers."""
    colour = _COLOURS[found.verdict]
    head = Text.assemble(
        (f" {found.verdict} ", f"bold reverse {colour}"), "  ", (found.category, "bold"),
        f"  {percent(found.probability)}",
    )  # fmt: skip
    parts: list[Any] = [head, Text(reason(found)), "", _evidence(found), ""]
    parts += [Text(note, style="dim") for note in notes(found)]
    return Panel(Group(*parts, "", _numbers(found)), border_style=colour, expand=False)


def _evidence(found: Prediction) -> Table:
    table = plain_table("", "similarity", "image", "text", "category", "product", "picture")
    chosen = chosen_evidence(found.neighbours)
    near = [shown.evidence.neighbour for shown in chosen]
    pictures = [nearby(each.matched or each.image) for each in near]
    # a path in two pieces cannot be copied, but a long one would leave no room for the rest
    table.columns[-1].no_wrap = max(map(len, pictures), default=0) <= _PATH
    for shown, picture in zip(chosen, pictures, strict=True):
        n = shown.evidence.neighbour
        numbers = [n.similarity, n.image_similarity, n.text_similarity]
        name = Text(n.title[:48] or n.id)
        if shown.folded:
            name.append(f" {shown.folded}", style="dim")
        table.add_row(
            Text(*_MARKS[shown.evidence.role]),
            *("-" if value is None else f"{value:.2f}" for value in numbers),
            Text(leaf(n.category)),
            name,
            Text(picture, style="dim"),
        )
    return table


def nearby(image: str | None) -> str:
    """A picture's path from the current folder if that is shorter, a URL as it is."""
    if not image or "://" in image:
        return image or "-"
    return min(image, os.path.relpath(image), key=len)


def _numbers(found: Prediction) -> Table:
    table = plain_table("source", "prediction", "probability")
    for name, vote in predictors(found):
        table.add_row(name, Text(leaf(vote.category)), f"{vote.probability:.3f}")
    return table


def neighbours_table(found: Sequence[Neighbour]) -> Table:
    """Similarity, its two parts, and what the product is."""
    rows = [
        {
            "similarity": n.similarity,
            "image": n.image_similarity,
            "text": n.text_similarity,
            "id": n.id,
            "category": n.category,
            "title": n.title[:60],
        }
        for n in found
    ]
    return rows_table(["similarity", "image", "text", "id", "category", "title"], rows)


def answers_table(products: Sequence[Product], found: Sequence[Prediction]) -> Table:
    """One line a product."""
    rows = [
        {
            "id": product.id,
            "title": product.title[:50],
            "category": answer.category,
            "probability": answer.probability,
            "verdict": answer.verdict,
        }
        for product, answer in zip(products, found, strict=True)
    ]
    return rows_table(["id", "title", "category", "probability", "verdict"], rows)


def nearest_table(products: Sequence[Product], found: Sequence[SearchResult]) -> Table:
    """One line a product: the nearest on the shelf."""
    rows = [
        {
            "id": product.id,
            "title": product.title[:50],
            "nearest": near.id if near else None,
            "its title": near.title[:50] if near else None,
            "similarity": near.similarity if near else None,
        }
        for product, answer in zip(products, found, strict=True)
        for near in [next(iter(answer.neighbours), None)]
    ]
    return rows_table(["id", "title", "nearest", "its title", "similarity"], rows)
