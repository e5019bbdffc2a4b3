"""The rows of the sample catalogue: products from the shop, and the blemishes put in on purpose."""

from __future__ import annotations

import dataclasses
import io
import zlib
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from kinshelf.samples.generator import photo, wording
from kinshelf.samples.generator.concepts import CONCEPTS, NOVELTY, Concept
from kinshelf.samples.generator.drawing import chance, pick
from kinshelf.samples.generator.shop import Item, invent, portray

SIZES = {
    "jigsaw": 100,
    "board game": 95,
    "plush": 90,
    "blocks": 80,
    "vehicle": 85,
    "mug": 75,
    "pot": 70,
    "lamp": 60,
}
"""Products per category, before duplicates are added."""

WRONG_LABELS = 0.02
DUPLICATES = 0.02
NO_CATEGORY = 0.02
NO_IMAGE = 0.02
NO_TEXT = 0.015
NO_DESCRIPTION = 0.06
HARD_INCOMING = (2, 13, 22)


@dataclass(frozen=True, slots=True)
class Row:
    """One product with its words and its picture, and what the shop would not say about it.

    `picture` holds the bytes of a JPEG, empty for a product without one. `truth` is the category
    it belongs in, whatever `category` states; `notes` name what is special about it.
    """

    id: str
    item: Item
    title: str
    description: str
    category: str
    truth: str
    picture: bytes
    split: str = ""
    notes: tuple[str, ...] = field(default=())

    def with_note(self, note: str, **changes: object) -> Row:
        """A changed copy that states why it was changed."""
        return dataclasses.replace(self, notes=(*self.notes, note), **changes)  # type: ignore[arg-type]


def stream(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one purpose: no other purpose's drawing can shift them."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def make_row(concept: Concept, key: str, seed: int, hard: float = 0.2) -> Row:
    """Think up, describe and portray one product."""
    rng = stream(seed, key)
    item = invent(concept, rng, hard)
    category = concept.category or ""
    return Row(
        id=key,
        item=item,
        title=wording.title(item, rng),
        description=wording.description(item, rng),
        category=category,
        truth=category,
        picture=photo.jpeg(portray(item, rng), 84),
        notes=_difficulties(item),
    )


def _difficulties(item: Item) -> tuple[str, ...]:
    picture = {"plain": (), "unusual": ("unusual-colour",)}.get(item.view, ("hard-picture",))
    return (*picture, "hard-title") if item.vague else picture


def products(seed: int, share: float = 1.0) -> list[Row]:
    """The catalogue itself; `share` scales every category's size, for a quick try."""
    names = [name for name, size in SIZES.items() for _ in range(round(size * share))]
    rng = stream(seed, "blemishes")
    rng.shuffle(names)
    rows = [
        make_row(CONCEPTS[name], f"KS-{number:04d}", seed)
        for number, name in enumerate(names, start=1)
    ]
    rows = _mislabelled(_thinned(rows, rng), rng)
    return split_rows(_doubled(rows, rng), rng)


def incoming(seed: int, each: int = 3) -> list[Row]:
    """Products of known categories that nobody has categorised yet, three of them hard."""
    rows = []
    for number, concept in enumerate(list(CONCEPTS.values()) * each, start=1):
        hard = 1.0 if number in HARD_INCOMING else 0.0
        rows.append(make_row(concept, f"IN-{number:04d}", seed, hard))
    return [dataclasses.replace(row, category="") for row in rows]


def new_categories(seed: int, count: int = 40) -> list[Row]:
    """Products of a category that the catalogue does not have."""
    rows = [make_row(NOVELTY, f"NW-{number:04d}", seed) for number in range(1, count + 1)]
    return split_rows(rows, stream(seed, "newcomers"))


def _chosen(count: int, share: float, rng: np.random.Generator) -> list[int]:
    return sorted(int(at) for at in rng.permutation(count)[: round(count * share)])


def _thinned(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Take away what real catalogues lack here and there; never both picture and words."""
    rows = [
        row.with_note("no-description", description="") if chance(rng, NO_DESCRIPTION) else row
        for row in rows
    ]
    order = [int(at) for at in rng.permutation(len(rows))]
    counts = [round(len(rows) * share) for share in (NO_IMAGE, NO_TEXT, NO_CATEGORY)]
    for at in order[: counts[0]]:
        rows[at] = rows[at].with_note("no-image", picture=b"")
    for at in order[counts[0] : sum(counts[:2])]:
        rows[at] = rows[at].with_note("no-text", title="", description="")
    for at in order[sum(counts[:2]) : sum(counts)]:
        rows[at] = rows[at].with_note("no-category", category="")
    return rows


def _mislabelled(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    labelled = [at for at, row in enumerate(rows) if row.category]
    for place in _chosen(len(labelled), WRONG_LABELS, rng):
        at = labelled[place]
        others = sorted({row.truth for row in rows} - {rows[at].truth})
        rows[at] = rows[at].with_note("wrong-label", category=pick(rng, others))
    return rows


def _doubled(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Add exact and near duplicates of some complete products."""
    whole = [row for row in rows if row.picture and row.title and row.category == row.truth]
    twins = []
    for number, at in enumerate(_chosen(len(whole), DUPLICATES, rng), start=len(rows) + 1):
        twin = dataclasses.replace(whole[at], id=f"KS-{number:04d}")
        if number % 2:
            twins.append(twin.with_note(f"duplicate-of={whole[at].id}"))
        else:
            twins.append(_near_twin(twin, whole[at].id, rng))
    return [*rows, *twins]


def _near_twin(row: Row, original: str, rng: np.random.Generator) -> Row:
    """The same photo cropped and saved again, under a title that another seller gave it."""
    picture = Image.open(io.BytesIO(row.picture))
    side, cut = picture.width, int(rng.integers(2, 5))
    cropped = picture.crop((cut, cut, side, side)).resize(picture.size)
    return row.with_note(
        f"near-duplicate-of={original}",
        title=wording.reworded(row.title, rng),
        picture=photo.jpeg(cropped, 74),
    )


def split_rows(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Mark a fifth of every category as `val` and the rest as `train`; none without a category.

    Hard products are shared out in the same proportion.
    """
    by_category: dict[str, list[int]] = {}
    for at in rng.permutation(len(rows)).tolist():
        by_category.setdefault(rows[at].category, []).append(at)
    by_category.pop("", None)
    marked = list(rows)
    for members in by_category.values():
        members.sort(key=lambda at: sorted(note for note in rows[at].notes if "hard" in note))
        for place, at in enumerate(members):
            marked[at] = dataclasses.replace(rows[at], split="val" if place % 5 == 2 else "train")
    return marked
