"""What a source turned out to be, for a person: layout, pictures, notation of prices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from kinshelf.db.formats.source import BadRow
from kinshelf.db.layouts.names import key_of
from kinshelf.db.product import pictures_of
from kinshelf.db.sources.binding import map_line
from kinshelf.db.sources.values import text_of
from kinshelf.db.text import parse_price, point_groups_in

if TYPE_CHECKING:
    from kinshelf.db.formats.source import RowSource
    from kinshelf.db.product import Product
    from kinshelf.db.sources.batches import ReadBatch
    from kinshelf.db.sources.columns import ColumnPlan

_SAMPLED = 1000
_SHOWN = 6


def with_price_notation(source: RowSource, plan: ColumnPlan) -> ColumnPlan:
    """The plan with the notation of prices that the first 1,000 rows show."""
    if not source.from_text or "price" not in plan.fields:
        return plan
    texts = _prices(source, plan.fields["price"])
    groups = point_groups_in(texts)
    if groups is None:
        return plan
    example = next(text for text in texts if point_groups_in([text, "1,5"]))
    amount = parse_price(example, point_groups=groups)
    alone = sum(point_groups_in([text, "1,5"]) is not None for text in texts) == len(texts) == 1
    why = (
        "which no other price shows: write 1299 for the larger one"
        if alone
        else ("as the column's other prices show")
    )
    note = f"the price {example!r} is read as {amount:,.10g}, {why}"
    return replace(plan, point_groups=groups, price_note=note)


def _prices(source: RowSource, column: str) -> list[str]:
    rows = islice(source.rows([column]), _SAMPLED)
    return [text_of(row.get(column)) for row in rows if not isinstance(row, BadRow)]


@dataclass(slots=True)
class Tally:
    """Counts what is read; `lines` is for a person."""

    source: RowSource
    plan: ColumnPlan
    products: int = 0
    pictures: int = 0
    several: bool = False
    others: int = 0
    further: int = 0
    categories: set[str] = field(default_factory=set)
    _longest: int = 100_000

    def counted(self, batches: Iterator[ReadBatch]) -> Iterator[ReadBatch]:
        """The batches as they are."""
        for batch in batches:
            for product in batch.products:
                self._count(product)
            self.others += sum(not reject.kept for reject in batch.rejects)
            self.further += sum(reject.reason == "further-picture" for reject in batch.rejects)
            yield batch

    def _count(self, product: Product) -> None:
        number = len(pictures_of(product))
        self.products += 1
        self.pictures += number
        self.several |= number > 1
        if product.category and len(self.categories) < self._longest:
            self.categories.add(product.category)

    def lines(self) -> list[str]:
        """The layout and what came of the file, where that is not plain from its columns."""
        rows: int = getattr(self.source, "rows_read", 0) or self.products + self.others
        rows += self.further
        notes = [self.plan.price_note] if self.plan.price_note else []
        if self.plan.proposed:
            notes.append(f"not recognised by name, but it may be {map_line(self.plan.proposed)}")
        own = all(key_of(column) == name for name, column in self.plan.fields.items())
        if self.plan.layout is None and own and not self.several:
            return notes
        name = self.plan.layout or "columns with common names"
        line = f"read as: {name}; {_many(self.products, 'product')}"
        if rows > self.products + self.others:
            line += f" from {rows:,} rows"
        line += f", {_many(self.pictures, 'picture')}"
        line += f", {_many(len(self.categories), 'category', 'categories')}"
        return [line + self._ignored(), *notes]

    def _ignored(self) -> str:
        names = [c for c in self.plan.columns if c in self.plan.choice.hidden]
        names = [c for c in names if c not in self.plan.choice.pictures]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"; no attributes: {', '.join(names[:_SHOWN])}{more}" if names else ""


def _many(count: int, one: str, several: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"
