"""How one product of the sample shop is thought up and pictured.

Some are hard on purpose. A *disguised* picture shows the closed box or the mug without its handle,
and only the words tell what it is; a *vague* title would fit several categories, and only the
picture tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinshelf.samples.generator.appearance import Look
from kinshelf.samples.generator.concepts import CONCEPTS, Concept
from kinshelf.samples.generator.drawing import (
    COLOURS,
    Canvas,
    between,
    chance,
    darker,
    lighter,
    pick,
    varied,
)
from kinshelf.samples.generator.photo import BACKGROUNDS, Setting, photograph
from kinshelf.samples.generator.scenes import THEMES

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

BRANDS = (
    "Pinebrook", "Ottermoss", "Hazelwick", "Tinkertor", "Marlow Kiln", "Fernhollow", "Bramblebee",
    "Quillo", "Snowpaw", "Søren & Fjell", "Lumo & Finch", "Wobbleton", "Claymore Lane",
    "Petit Hêtre",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One product as it is thought up, before it has words, a picture or a row.

    `view` is "plain", "disguised", "close-up", "dim" or "unusual"; the last is a colour that the
    thing seldom has. `vague` asks for a title that does not name the thing.
    """

    concept: Concept
    kind: str
    colour: str
    accent: str
    pattern: str
    theme: str
    brand: str
    material: str
    price: float
    age: int | None
    pieces: int | None
    view: str
    vague: bool


def invent(concept: Concept, rng: np.random.Generator, hard: float = 0.2) -> Item:
    """Think up a product; `hard` is the share of disguised pictures and, apart, of vague titles."""
    view = _view(concept, rng, hard)
    colours = concept.colours
    if view == "unusual":
        colours = tuple(name for name in COLOURS if name not in concept.colours) or colours
    low, high = concept.prices
    return Item(
        concept=concept,
        kind=pick(rng, list(concept.kinds)),
        colour=pick(rng, colours),
        accent=pick(rng, list(COLOURS)),
        pattern=pick(rng, concept.patterns),
        theme=pick(rng, list(THEMES)),
        brand=pick(rng, BRANDS),
        material=pick(rng, concept.materials),
        price=round(between(rng, low, high)) - 0.01,
        age=pick(rng, concept.ages) if concept.ages else None,
        pieces=pick(rng, concept.pieces) if concept.pieces else None,
        view=view,
        vague=chance(rng, hard),
    )


def _view(concept: Concept, rng: np.random.Generator, hard: float) -> str:
    if chance(rng, hard):
        return "disguised" if concept.disguises and chance(rng, 0.65) else pick(rng, VIEWS)
    return "unusual" if hard and chance(rng, 0.06) else "plain"


VIEWS = ("close-up", "dim")


def portray(item: Item, rng: np.random.Generator) -> Image.Image:
    """A photo of the product, RGB, `photo.PHOTO_SIDE` pixels square."""
    drawing = _drawn(item, rng)
    beside = None
    if chance(rng, 0.12):
        other = invent(CONCEPTS[pick(rng, list(CONCEPTS))], rng, hard=0)
        beside = _drawn(other, rng)
    return photograph(drawing, beside, _setting(item, rng), rng)


def _drawn(item: Item, rng: np.random.Generator) -> Image.Image:
    ground, accent = varied(rng, COLOURS[item.colour]), varied(rng, COLOURS[item.accent])
    if sum(abs(a - b) for a, b in zip(ground, accent, strict=True)) < 120:
        accent = lighter(accent, 0.7) if sum(ground) < 380 else darker(accent, 0.55)
    canvas = Canvas()
    disguised = item.view == "disguised"
    look = Look(item.kind, ground, accent, item.pattern, item.theme, disguised, rng)
    item.concept.paint(canvas, look)
    return canvas.image


def _setting(item: Item, rng: np.random.Generator) -> Setting:
    near, dim = item.view == "close-up", item.view == "dim"
    concept, reach = item.concept, 0.24 if near else 0.06
    tilt = 5 if concept.stands else 9
    return Setting(
        background=pick(rng, list(BACKGROUNDS) if chance(rng, 0.15) else concept.backgrounds),
        zoom=between(rng, 1.9, 2.5) if near else between(rng, 0.78, 1.05),
        tilt=between(rng, -tilt, tilt),
        shift=(between(rng, -reach, reach), between(rng, -reach, reach)),
        light=between(rng, 0.3, 0.45) if dim else between(rng, 0.85, 1.08),
        grain=between(rng, 8, 14) if dim else between(rng, 2, 6),
        blur=between(rng, 1.5, 2.4) if dim else 0,
        stands=concept.stands and item.view != "disguised",
        fuzzy=concept.fuzzy,
    )
