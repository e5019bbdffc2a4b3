"""Titles and descriptions from templates, as a shop's many suppliers would write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinshelf.samples.generator.drawing import chance, pick

if TYPE_CHECKING:
    import numpy as np

    from kinshelf.samples.generator.shop import Item

PRAISE = ("Classic", "Lovely", "Cosy", "Premium", "Original", "Deluxe", "Mini", "Large", "Handmade")
THEME_WORDS: dict[str, tuple[str, ...]] = {
    "forest": ("Enchanted Forest", "Pine Woods"),
    "ocean": ("Ocean Friends", "Under the Sea"),
    "space": ("Outer Space", "Planets & Stars"),
    "farm": ("Happy Farm", "Farm Life"),
    "castle": ("Royal Castle", "Castle Dreams"),
    "mountain": ("Mountain Sunset", "Alpine Lake"),
    "city": ("Big City", "City Lights"),
    "garden": ("Flower Garden", "Garden Party"),
}
ANIMALS = ("Bear", "Bunny", "Kitten", "Elephant", "Penguin", "Panda", "Fox")
SMALL_TALK = (
    "Makes a lovely gift for birthdays and holidays",
    "Designed with care by a small family workshop",
    "Colours may vary slightly from the picture",
    "Packed without plastic",
    "A favourite of our customers since 1998",
    "Please keep the instructions",
    "Ships within two days",
)
ASIDES = (
    "Goes well with our coffee mugs and table lamps",
    "Looks good next to a flower pot",
    "See also our jigsaw puzzles and board games",
    "As cuddly as our teddy bears",
    "Fits in a backpack next to building blocks and toy cars",
)


def title(item: Item, rng: np.random.Generator) -> str:
    """What the product is called; a vague item's title would fit other categories too."""
    if item.vague:
        return _vague_title(item, rng)
    noun = pick(rng, item.concept.kinds[item.kind])
    words = [*_qualities(item, rng), noun]
    if item.concept.themed:
        words.insert(0, pick(rng, THEME_WORDS[item.theme]))
    if chance(rng, 0.85):
        words.insert(0, item.brand)
    name = " ".join(dict.fromkeys(" ".join(words).split()))
    return ", ".join([name, *_facts(item, rng)])


def description(item: Item, rng: np.random.Generator) -> str:
    """Two to four sentences; a vague item's never say what it is."""
    sentences = [pick(rng, SMALL_TALK)]
    if item.concept.details and not item.vague:
        sentences.insert(0, pick(rng, item.concept.details))
        if chance(rng, 0.5):
            sentences.insert(1, pick(rng, item.concept.details))
    if chance(rng, 0.12):
        sentences.append(pick(rng, ASIDES))
    if chance(rng, 0.4):
        sentences.append(f"Made of {item.material}, in {item.colour}")
    return ". ".join(dict.fromkeys(sentences)) + "."


def reworded(name: str, rng: np.random.Generator) -> str:
    """The same title as another seller would give it."""
    return pick(rng, [f"{name} - New", f"{name.upper()}", f"NEW! {name}", f"{name} (Pack of 1)"])


def _qualities(item: Item, rng: np.random.Generator) -> list[str]:
    words = []
    if chance(rng, 0.3):
        words.append(pick(rng, PRAISE))
    if item.pattern != "plain" and not item.concept.themed and chance(rng, 0.5):
        words.append(item.pattern.title())
    if not item.concept.themed and chance(rng, 0.65):
        words.append(item.colour.title())
    if chance(rng, 0.3):
        words.append(item.material.title())
    return words


def _facts(item: Item, rng: np.random.Generator) -> list[str]:
    facts = []
    if item.pieces is not None and chance(rng, 0.6):
        facts.append(f"{item.pieces} {pick(rng, ['Pieces', 'pcs', 'Piece Set'])}")
    if item.age is not None and chance(rng, 0.5):
        facts.append(f"Ages {item.age}+")
    return facts


def _vague_title(item: Item, rng: np.random.Generator) -> str:
    """A title by family: several categories share each of these templates."""
    family = item.concept.family
    if family == "soft" or (family == "boxed" and chance(rng, 0.35)):
        return ", ".join([f"{item.brand} {_animal(item, rng)} & Friends", *_facts(item, rng)])
    if family == "boxed":
        words = f"{item.brand} {pick(rng, THEME_WORDS[item.theme])}"
        ending = pick(rng, ["Adventure", "Collection", "Fun Set", "Playtime"])
        return ", ".join([f"{words} {ending}", *_facts(item, rng)])
    if family == "fired":
        look = " ".join(_qualities(item, rng)) or item.material.title()
        return (
            f"{item.brand} {look}, {pick(rng, ['Hand Glazed', 'Studio Edition', 'for the Home'])}"
        )
    return (
        f"{item.brand} {item.colour.title()} {pick(rng, ['Summer Fun', 'Edition', 'Collection'])}"
    )


def _animal(item: Item, rng: np.random.Generator) -> str:
    if item.concept.family == "soft":
        return {"cat": "Kitten"}.get(item.kind, item.kind.title())
    return pick(rng, ANIMALS)
