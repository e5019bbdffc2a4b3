"""Prepare a training set while reading: the largest categories, balanced, split by class."""

from __future__ import annotations

import dataclasses
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import xxhash

from kinshelf.db.errors import InputError, UnknownColumn
from kinshelf.db.sources.batches import ReadBatch, ReadOptions
from kinshelf.db.sources.readers import Opened, open_source, read_planned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kinshelf.db.product import Product

UNUSED = "unused"
"""The split of products that are on the shelf and do not train."""
_LEFT_OUT, _CHOSEN, _TRAIN, _VAL = range(4)
_SPLITS = {_TRAIN: "train", _VAL: "val"}
_MAX_SPARSE = 16


@dataclass(frozen=True, slots=True)
class TrainingSetOptions:
    """Options that choose the rows of a training set; None skips a step.

    In this order: the `top_categories` largest categories (ties by name) stay; of them those
    with fewer than `min_per_class` rows go; of the rest at most `max_per_class` rows are drawn.
    Draws depend on `seed`, the category's name and its own rows only. Every row is added: those
    that were not chosen get the split "unused", which does not train. `val_fraction` of the chosen
    ones get the split "val" and the others "train", by a hash of `seed` and the id, so that a file
    that grows moves none.

    `exact` is the coursework's selection: rows that were not chosen are left out, and of each
    class just `val_fraction` goes to "val".

    Raises:
        InputError: a count below 1, a fraction not between 0 and 1, or a negative seed.
    """

    top_categories: int | None = None
    min_per_class: int | None = None
    max_per_class: int | None = None
    val_fraction: float | None = None
    seed: int = 42
    exact: bool = False

    def __post_init__(self) -> None:
        for name in ("top_categories", "min_per_class", "max_per_class"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise InputError(f"{name} is {count}, but must be 1 or more")
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise InputError(
                f"val_fraction is {self.val_fraction}, but must lie between 0 and 1: 0.2 keeps a "
                "fifth of each class for validation"
            )
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}, but must not be negative")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows of one category that are not in the training set.

    `reason`: `not-among-the-largest`, `too-few` or `over-the-maximum`.
    """

    category: str
    rows: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSetPlan:
    """The data rows that were chosen, and the split of each.

    `classes` is chosen rows per category, largest first; `left_out` states what is missing and
    why; `uncategorised` counts the rows without a category, none of which is chosen.
    """

    marks: NDArray[np.int8]
    classes: dict[str, int]
    left_out: list[LeftOut]
    uncategorised: int

    @property
    def chosen(self) -> NDArray[np.intp]:
        """The chosen positions, ascending."""
        return np.flatnonzero(self.marks)

    @property
    def train(self) -> NDArray[np.intp]:
        """The positions that go to "train", ascending; none without a `val_fraction`."""
        return np.flatnonzero(self.marks == _TRAIN)

    @property
    def val(self) -> NDArray[np.intp]:
        """The positions that go to "val", ascending; none without a `val_fraction`."""
        return np.flatnonzero(self.marks == _VAL)

    def takes(self, position: int) -> bool:
        """Whether data row `position` is chosen."""
        return position < len(self.marks) and bool(self.marks[position])

    def split(self, position: int) -> str | None:
        """ "train" or "val"; None where the row is not chosen or no split was asked for."""
        return _SPLITS.get(int(self.marks[position])) if position < len(self.marks) else None


def plan_training_set(
    categories: Iterable[str | None], options: TrainingSetOptions
) -> TrainingSetPlan:
    """Choose among rows by their categories, the n-th item being that of data row n.

    Takes 12 bytes a row. The same categories in the same order and the same options give the
    same plan. Of a class of two rows or more, each side of the split gets at least one; a class
    of one row goes to "train".

    Raises:
        InputError: nothing would be chosen.
    """
    return _plan(enumerate(categories), options)


def plan_source(
    path: Path | str,
    options: ReadOptions,
    training: TrainingSetOptions,
    opened: Opened | None = None,
) -> TrainingSetPlan:
    """The plan for a source: reads it once, its attributes apart; rejected rows do not count.

    `opened` is what `open_source` gave for it, if it was opened already.

    Raises:
        UnknownColumn: no column is the category.
        InputError: nothing would be chosen; and whatever `read_source` raises.
    """
    source, columns = opened or open_source(path, options)
    if "category" not in columns.fields:
        raise UnknownColumn(
            f"{path} has no column for the category, by which a training set is chosen: map it "
            'with --map category="Column"'
        )
    return _plan(
        (
            (position, product.category)
            for batch in read_planned(source, columns.without_attributes(), path, options)
            for position, product in zip(batch.positions, batch.products, strict=True)
        ),
        training,
    )


def read_chosen(
    path: Path | str, options: ReadOptions, plan: TrainingSetPlan, opened: Opened | None = None
) -> Iterator[ReadBatch]:
    """The chosen rows of a source with their `split` set, and all its rejects."""
    chosen = max(1, len(plan.chosen))
    # Where few rows are chosen, more are read at once, or batches would come nearly empty.
    wider = min(_MAX_SPARSE, max(1, len(plan.marks) // chosen))
    options = dataclasses.replace(options, batch_size=options.batch_size * wider)
    source, columns = opened or open_source(path, options)
    for batch in read_planned(source, columns, path, options):
        kept = _only_chosen(batch, plan)
        if kept.products or kept.rejects:
            yield kept


class Preparation:
    """Preparing a source: the products that train, and how many.

    `classes` counts the products of each category that train or validate, `train` and `val` those
    of either split; `left_out` and `uncategorised` are as in `TrainingSetPlan`, `splits_kept` those
    that are on the shelf with another split, which they keep. Without
    `options.exact` the first three grow while the source is read.
    """

    def __init__(self, options: TrainingSetOptions, plan: TrainingSetPlan | None) -> None:
        self.options = options
        self.classes: Counter[str] = Counter(plan.classes if plan and options.exact else {})
        self.train, self.val = (
            (len(plan.train), len(plan.val)) if plan and options.exact else (0, 0)
        )
        self.left_out: list[LeftOut] = plan.left_out if plan else []
        self.uncategorised = plan.uncategorised if plan and options.exact else 0
        self.splits_kept = 0
        self._plan = plan

    @classmethod
    def of(
        cls, path: Path, options: ReadOptions, training: TrainingSetOptions, opened: Opened
    ) -> Self:
        """Look at a source first where its categories decide. Raises what `plan_source` raises."""
        chooses = training.top_categories or training.min_per_class or training.max_per_class
        if not (chooses or training.exact):
            return cls(training, None)
        return cls(training, plan_source(path, options, training, opened))

    def read(self, path: Path, options: ReadOptions, opened: Opened) -> Iterator[ReadBatch]:
        """The products to add, each with its split."""
        if self._plan and self.options.exact:
            yield from read_chosen(path, options, self._plan, opened)
            return
        for batch in read_planned(*opened, path, options):
            placed = zip(batch.positions, batch.products, strict=True)
            made = [self._placed(position, product) for position, product in placed]
            yield _with_splits(batch, made)

    def _placed(self, position: int, product: Product) -> Product:
        if product.category is None:
            return product
        if self._plan and not self._plan.takes(position):
            return product.replace(split=UNUSED)
        if self.options.val_fraction is None:
            return product
        drawn = xxhash.xxh3_64_intdigest(f"{self.options.seed}\0{product.id}".encode())
        validates = drawn < self.options.val_fraction * 2**64
        return product.replace(split="val" if validates else "train")

    def count(self, product: Product) -> None:
        """Count a product as it comes to stand on the shelf."""
        if self.options.exact:
            return
        if product.category is None:
            self.uncategorised += 1
        elif product.split != UNUSED:
            self.classes[product.category] += 1
            self.val += product.split == "val"
            self.train += product.split == "train"


def _with_splits(batch: ReadBatch, products: list[Product]) -> ReadBatch:
    """The batch with products that were given a split, which their rows have from now on."""
    if batch.row_fields is not None:
        batch.row_fields = [
            fields and fields.with_split() if new.split else fields
            for fields, new in zip(batch.row_fields, products, strict=True)
        ]
    batch.products = products
    return batch


def prepare(
    path: Path | str, options: ReadOptions, training: TrainingSetOptions
) -> Iterator[ReadBatch]:
    """The training set of a source, in two passes: the first at once, the second as it is read.

    Raises what `plan_source` raises.
    """
    return read_chosen(path, options, plan_source(path, options, training))


def _plan(rows: Iterable[tuple[int, str | None]], options: TrainingSetOptions) -> TrainingSetPlan:
    names, codes, positions, uncategorised = _coded(rows)
    if not names:
        raise InputError("no row has a category: a training set needs some")
    sizes = np.bincount(codes, minlength=len(names))
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(sizes)
    largest = sorted(range(len(names)), key=lambda code: (-sizes[code], names[code]))
    plan = TrainingSetPlan(np.zeros(positions[-1] + 1, np.int8), {}, [], uncategorised)
    for rank, code in enumerate(largest):
        members = positions[order[ends[code] - sizes[code] : ends[code]]]
        _place(plan, names[code], rank, members, options)
    if not plan.classes:
        raise InputError(
            f"no category has {options.min_per_class} rows: the largest is {names[largest[0]]!r} "
            f"with {sizes[largest[0]]}; lower --min-per-class"
        )
    return plan


def _coded(
    rows: Iterable[tuple[int, str | None]],
) -> tuple[list[str], NDArray[np.int32], NDArray[np.int64], int]:
    """Category names, and code and position of each row that has one; how many have none."""
    codes, positions = array("i"), array("q")
    by_name: dict[str, int] = {}
    uncategorised = 0
    for position, category in rows:
        if category is None:
            uncategorised += 1
        else:
            codes.append(by_name.setdefault(category, len(by_name)))
            positions.append(position)
    return (
        list(by_name),
        np.array(codes, np.int32),
        np.array(positions, np.int64),
        uncategorised,
    )


def _place(
    plan: TrainingSetPlan,
    name: str,
    rank: int,
    members: NDArray[np.int64],
    options: TrainingSetOptions,
) -> None:
    """Choose among one category's rows, and note what is left out."""
    size = len(members)
    if options.top_categories is not None and rank >= options.top_categories:
        plan.left_out.append(LeftOut(name, size, "not-among-the-largest"))
        return
    if options.min_per_class is not None and size < options.min_per_class:
        plan.left_out.append(LeftOut(name, size, "too-few"))
        return
    # A generator for each class, so that another category in the file changes nothing here.
    random = np.random.default_rng([options.seed, xxhash.xxh3_64_intdigest(name.encode())])
    drawn = random.permutation(members)[: options.max_per_class]
    if len(drawn) < size:
        plan.left_out.append(LeftOut(name, size - len(drawn), "over-the-maximum"))
    plan.classes[name] = len(drawn)
    plan.marks[drawn] = _CHOSEN if options.val_fraction is None else _TRAIN
    if options.val_fraction is not None and len(drawn) > 1:
        wanted = round(len(drawn) * options.val_fraction)
        plan.marks[drawn[: min(max(wanted, 1), len(drawn) - 1)]] = _VAL


def _only_chosen(batch: ReadBatch, plan: TrainingSetPlan) -> ReadBatch:
    kept = [place for place, position in enumerate(batch.positions) if plan.takes(position)]
    positions = [batch.positions[place] for place in kept]
    products = [batch.products[place] for place in kept]
    for place, position in enumerate(positions):
        if (split := plan.split(position)) is not None:
            products[place] = products[place].replace(split=split)
    image, text = batch.image_embeddings, batch.text_embeddings
    chosen = ReadBatch(
        batch.source,
        products,
        positions,
        [reject for reject in batch.rejects if not reject.kept or plan.takes(reject.position)],
        None if image is None else image[kept],
        None if text is None else text[kept],
        batch.row_fields and [batch.row_fields[place] for place in kept],
    )
    return _with_splits(chosen, products)
