"""The evidence card and other answers, drawn for the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kinshelf.commands.terminal import plain_table, rows_table

if TYPE_CHECKING:
    from kinshelf.db.product import Product
    from kinshelf.probe.predict import Evidence, Prediction, Vote
    from kinshelf.store import Neighbour

_COLOURS = {"accept": "green", "review": "yellow", "conflict": "red", "novel": "magenta"}
_SUPPORTS, _AGAINST = 3, 2
"""Neighbours of the predicted category and of the runner-up that a card shows."""


def evidence_card(found: Prediction) -> Panel:
    """Verdict and reason, then the neighbours for and against, then the numbers."""
    colour = _COLOURS[found.verdict]
    head = Text.assemble(
        (f" {found.verdict} ", f"bold reverse {colour}"), "  ", (found.category, "bold"),
        f"  {found.probability:.1%}",
    )  # fmt: skip
    parts: list[Any] = [head, Text(reason(found), style="dim"), "", _evidence(found)]
    return Panel(Group(*parts, "", _numbers(found)), border_style=colour, expand=False)


def reason(found: Prediction) -> str:
    """One sentence of why."""
    shown = len(found.neighbours)
    supports = sum(e.role == "supports" for e in found.neighbours)
    votes = f"{supports} of its {shown} nearest products are in this category"
    if found.probe is None:
        return f"No probe is trained yet, so the neighbours answer alone: {votes}."
    if found.agreement:
        return f"Probe and neighbours agree: {votes}."
    return (
        f"The probe says {found.probe.category}, the neighbours say {found.knn.category}: {votes}."
    )


def _evidence(found: Prediction) -> Table:
    table = plain_table("", "similarity", "image", "text", "category", "product", "picture")
    chosen = _chosen(found.neighbours)
    for entry in chosen:
        n = entry.neighbour
        numbers = [n.similarity, n.image_similarity, n.text_similarity]
        mark = {"supports": Text("for", "green"), "runner-up": Text("against", "red")}
        table.add_row(
            mark.get(entry.role, Text("other", "dim")),
            *("-" if value is None else f"{value:.2f}" for value in numbers),
            Text(leaf(n.category)),
            Text(n.title[:48] or n.id),
            Text(nearby(n.image), style="dim"),
        )
    return table


def leaf(category: str | None) -> str:
    """The last step of a category path; the answer's own is given in full above it."""
    return (category or "-").rpartition(" | ")[2]


def nearby(image: str | None) -> str:
    """A picture's path from the current folder if that is shorter, a URL as it is."""
    if not image or "://" in image:
        return image or "-"
    return min(image, os.path.relpath(image), key=len)


def _chosen(neighbours: Sequence[Evidence]) -> list[Evidence]:
    supports = [e for e in neighbours if e.role == "supports"][:_SUPPORTS]
    against = [e for e in neighbours if e.role != "supports"][:_AGAINST]
    return supports + against


def _numbers(found: Prediction) -> Table:
    table = plain_table("voice", "says", "probability")
    probe = f"probe {found.probe_version}"
    voices: list[tuple[str, Vote | None]] = [
        (probe, found.probe), (f"{found.k} neighbours", found.knn),
        ("picture alone", found.image_only), ("text alone", found.text_only),
    ]  # fmt: skip
    for name, vote in voices:
        if vote is not None:
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
