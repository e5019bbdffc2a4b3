"""Pictures with captions for the tiny CLIP: more kinds of things than the sample shop sells."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kinshelf.samples.generator import photo, wording
from kinshelf.samples.generator.concepts import CONCEPTS, NOVELTY, UNSOLD
from kinshelf.samples.generator.drawing import chance, pick
from kinshelf.samples.generator.rows import stream
from kinshelf.samples.generator.shop import Item, invent, portray

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_SIDE = 64
"""Pixels along a picture as the tiny CLIP sees it."""

HARD = 0.1
SOLD = 0.65
"""The share of pictures that show what the shop sells; the rest is what it never will."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """n captioned pictures.

    `pictures` is (n, `IMAGE_SIDE`, `IMAGE_SIDE`, 3) uint8, `captions` has n triples, short to long,
    `names` states what each picture shows: the name of a concept.
    """

    pictures: NDArray[np.uint8]
    captions: list[tuple[str, ...]]
    names: list[str]


def draw_pairs(count: int, seed: int, purpose: str) -> Pairs:
    """Draw captioned pictures; another `purpose` gives other ones from the same seed."""
    things = {**CONCEPTS, "kite": NOVELTY, **UNSOLD}
    pictures = np.empty((count, IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
    captions, names = [], []
    for number in range(count):
        rng = stream(seed, f"{purpose}-{number}")
        names.append(_name(rng))
        item = invent(things[names[-1]], rng, HARD)
        captions.append(_captions(item, rng))
        pictures[number] = _seen(item, rng)
    return Pairs(pictures, captions, names)


def _name(rng: np.random.Generator) -> str:
    return pick(rng, [*CONCEPTS, "kite"] if chance(rng, SOLD) else list(UNSOLD))


def _seen(item: Item, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The product's photo as it comes back from a JPEG file, resized as CLIP's processor does."""
    saved = photo.jpeg(portray(item, rng), int(rng.integers(70, 92)))
    picture = Image.open(io.BytesIO(saved)).convert("RGB")
    return np.asarray(picture.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC))


def _captions(item: Item, rng: np.random.Generator) -> tuple[str, ...]:
    """What a person would say or type, the shop's title, and the title with its description."""
    look = [item.pattern] if item.pattern != "plain" and not item.concept.themed else []
    look += [] if item.concept.themed else [item.colour]
    short = " ".join([*look, pick(rng, item.concept.kinds[item.kind]).lower()])
    if item.concept.themed:
        short = f"{pick(rng, wording.THEME_WORDS[item.theme]).lower()} {short}"
    if chance(rng, 0.5):
        short = f"a photo of a {short}"
    title = wording.title(item, rng)
    return short, title, f"{title} || {wording.description(item, rng)}"
