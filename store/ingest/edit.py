"""Changes by id that need no encoder: products removed, categories corrected by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import (
    DuplicateId,
    InputError,
    ProductNotFound,
    UnknownColumn,
    UnreadableSource,
)
from kinshelf.db.product import PREDICTED, pictures_of, with_pictures

if TYPE_CHECKING:
    from kinshelf.db.catalog.records import Body, Head
    from kinshelf.db.product import Product, StoredProduct
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.ingest.candidate import Candidate

_YES = {"1", "true", "yes", "y", "x", "ok", "ja", "\u2713", "\u2714", "accept", "accepted"}
_NO = {"", "0", "false", "no", "n", "nein", "reject", "rejected"}
_NO_NAMES = {"true", "false"}
_SHOWN = 5


def remove(shelf: AnyShelf, ids: Sequence[str]) -> int:
    """See `Shelf.remove`."""
    with shelf.writing():
        now = shelf.snapshot()
        found = now.view.by_ids(ids)
        rows = [(found.get(name) or now.get(name)).row for name in dict.fromkeys(ids)]
        if rows:
            head: Head = {
                "kind": "remove", "command": "remove", "removed": rows,
                "counts": {"removed": len(rows)},
            }  # fmt: skip
            shelf.commit(head, {})
    return len(rows)


def relabel(shelf: AnyShelf, changes: Mapping[str, str | None]) -> int:
    """See `Shelf.relabel`."""
    from kinshelf.db.text import clean_category

    # the vectors of the new rows are copies of the old ones
    wanted = {i: None if name is None else clean_category(name) for i, name in changes.items()}
    with shelf.writing():
        known = shelf.known(list(wanted))
        _refuse_unknown(shelf, [name for name in wanted if name not in known])
        old = [known[i] for i, category in wanted.items() if _is_news(known[i], category)]
        if old:
            vectors = shelf.snapshot().pairs([stored.row for stored in old])
            changed = [
                _candidate(
                    stored, pairs, stored.product.replace(category=wanted[stored.product.id])
                )
                for stored, pairs in zip(old, vectors, strict=True)
            ]
            shelf.commit(*frame_of(changed, shelf.next_row, "relabel"), vectors)
    return len(old)


def _is_news(stored: StoredProduct, category: str | None) -> bool:
    """Whether it is another category, settles a disputed one or confirms a predicted one."""
    open_ones = {"disputed", PREDICTED} & stored.decided.get("category", {}).keys()
    return bool(open_ones) or stored.product.category != category


def amend(shelf: AnyShelf, product_id: str, changes: Mapping[str, Any]) -> bool:
    """Give a product other fields (those of `Product`); False if it has them already.

    Only a new title, description or image is encoded. Raises ProductNotFound or InputError.
    """
    from kinshelf.store.ingest.add import upsert
    from kinshelf.store.ingest.candidate import pairs_of
    from kinshelf.store.ingest.merge import decide

    with shelf.writing():
        old = shelf.snapshot().get(product_id)
        product = old.product.replace(**changes)
        if product.image != old.product.image:
            further = [one for one in pictures_of(old.product) if one != old.product.image]
            product = with_pictures(product, [one for one in (product.image, *further) if one])
        if product == old.product and decide(old, product, changes) == old.decided:
            return False
        if product.image != old.product.image:
            report = upsert(shelf, [product], None, None, "update", by_person=True)
            if report.rejected:
                raise InputError(next(iter(report.examples.values())))
            return True
        changed = _candidate(old, shelf.snapshot().pairs([old.row])[0], product, changes)
        if product.text != old.product.text:
            _read_again(shelf, changed)
        shelf.commit(
            *frame_of([changed], shelf.next_row, "amend"), pairs_of([changed], shelf.dimension)
        )
    return True


def _read_again(shelf: AnyShelf, changed: Candidate) -> None:
    """Take the embedding of its new text; the picture's stays."""
    from kinshelf.store.log import records

    text = changed.product.text
    changed.text = shelf.writing_encoder().encode_texts([text])[0] if text else None
    if changed.text is None and changed.image is None:
        raise InputError(f"{changed.product.id!r} has no picture and would have no text")
    changed.content_hash = records.content_hash(
        changed.product, changed.image_hash, decided=changed.decided
    )


def _refuse_unknown(shelf: AnyShelf, unknown: Sequence[str]) -> None:
    if unknown:
        shown = ", ".join(map(repr, unknown[:_SHOWN])) + (", ..." if len(unknown) > _SHOWN else "")
        raise ProductNotFound(
            f"{len(unknown)} of the ids are not on {shelf.name} ({shown}): nothing was changed;"
            " take them out, or add those products first"
        )


def frame_of(
    changed: list[Candidate], first_row: int, kind: str, command: str = ""
) -> tuple[Head, Body]:
    """The frame of products that replace those that they were before."""
    from kinshelf.store.log import records

    head: Head = {
        "kind": kind,
        "command": command or kind,
        "counts": {"inserted": 0, "updated": len(changed), "rejected": 0},
        "removed": [c.old.row for c in changed if c.old],
        "attributes": records.attribute_types(changed),
    }
    return head, {"rejects": [], "resolved": [], "products": records.columns(changed, first_row)}


def candidate_of(stored: StoredProduct, pairs: FloatArray) -> Candidate:
    """A stored product on its way into a shelf once more, unchanged; `pairs` (2 * d,) float32."""
    from kinshelf.store.ingest.candidate import Candidate, carry_over

    same = Candidate(stored.product, 0, "stored", old=stored, decided=stored.decided)
    carry_over(same, pairs)
    return same


def _candidate(
    stored: StoredProduct,
    pairs: FloatArray,
    product: Product,
    confirmed: Collection[str] | None = None,
) -> Candidate:
    """The product as a person wants it, with what was computed of it before."""
    from kinshelf.store.ingest.candidate import Candidate, carry_over
    from kinshelf.store.ingest.merge import decide

    changed = Candidate(product, 0, "stored", old=stored)
    changed.decided = decide(stored, product, confirmed)
    carry_over(changed, pairs)
    return changed


@dataclass(frozen=True, slots=True)
class Corrections:
    """The categories that a reviewed file gives, by id, and how many came from each column.

    `untouched` are the ids of a file that asks for decisions whose row has none, so that their
    category is what it was when the file was written.
    """

    categories: dict[str, str]
    columns: Counter[str]
    untouched: set[str] = field(default_factory=set)

    def decided(self, shelf: AnyShelf) -> dict[str, str]:
        """The categories without those of untouched rows that a person has decided meanwhile."""
        known = shelf.known(sorted(self.untouched))
        passed = {name for name, stored in known.items() if "category" in stored.decided}
        return {name: c for name, c in self.categories.items() if name not in passed}


def read_changes(
    path: Path, *, delimiter: str | None = None, encoding: str | None = None
) -> Corrections:
    """Ids and categories of a reviewed file: CSV, TSV, JSONL or Parquet, one product a row.

    A row's category is what stands in `new_category`; else its `suggested_category`, if a column
    `accept` is yes; else what stands in `category`. A row without any is passed over.
    Raises InputError: SourceNotFound, UnreadableSource, UnknownColumn, a category that is no text,
    or DuplicateId if one id is given two categories.
    """
    from kinshelf.db.formats.source import BadRow
    from kinshelf.db.sources.readers import ReadOptions, open_rows
    from kinshelf.db.sources.values import text_of
    from kinshelf.db.text import clean_category, clean_key, from_spreadsheet

    source = open_rows(path, ReadOptions(delimiter=delimiter, encoding=encoding))
    _check_columns(path, source.columns)
    found = Corrections({}, Counter())
    for row in source.rows():
        if isinstance(row, BadRow) and row.expected:
            continue
        if isinstance(row, BadRow):
            raise UnreadableSource(f"{path}: {row.message}: mend the row, then run this again")
        read = from_spreadsheet if source.from_text else str
        cells = {name: read(text_of(value)) for name, value in row.items()}
        key, column = clean_key(cells.get("id", "")), _chosen(cells)
        _check_text(path, key, column, row.get(column))
        category = clean_category(cells.get(column, ""))
        if not key or category is None:
            continue
        if column == "category" and {"new_category", "accept"} & row.keys():
            found.untouched.add(key)
        found.columns[column] += key not in found.categories
        if found.categories.setdefault(key, category) != category:
            raise DuplicateId(
                f"{path} gives {key!r} two categories, {found.categories[key]!r} and"
                f" {category!r}: keep one"
            )
    return found


def _check_text(path: Path, key: str, column: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or value.strip().casefold() in _NO_NAMES:
        raise InputError(
            f"{path}: {key!r} has {value!r} in the column {column!r}, which is no category:"
            " write the category's name, or leave the cell empty"
        )


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    there = set(columns)
    asked = {"category", "new_category"} & there or {"accept", "suggested_category"} <= there
    if "id" not in there or not asked:
        raise UnknownColumn(
            f"{path} has the columns {', '.join(columns)}: `id` is needed, and `new_category`,"
            " `accept` with `suggested_category`, or `category`"
        )


def _is_yes(key: str, answer: str) -> bool:
    """What stands under `accept`. Raises InputError where it is neither yes nor no."""
    if answer.casefold() in _YES | _NO:
        return answer.casefold() in _YES
    raise InputError(
        f"{key!r} has {answer!r} in the column 'accept': write yes or no, or leave it empty"
    )


def _chosen(row: Mapping[str, str]) -> str:
    """The column that the category of a row stands in."""
    if row.get("new_category", "").strip():
        return "new_category"
    accepted = _is_yes(row.get("id", ""), row.get("accept", "").strip())
    suggested = accepted and row.get("suggested_category", "").strip()
    return "suggested_category" if suggested else "category"
