"""Changes by id that need no encoder: products removed, categories corrected by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import (
    DuplicateId,
    ImageRejected,
    InputError,
    ProductNotFound,
    UnknownColumn,
    UnreadableSource,
)
from kinshelf.store.search import fusion

if TYPE_CHECKING:
    from kinshelf.db.catalog.records import Body, Head
    from kinshelf.db.product import Product, StoredProduct
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.ingest.candidate import Candidate

_YES = {"1", "true", "yes", "y", "x", "accept", "accepted"}
_SHOWN = 5


def remove(shelf: AnyShelf, ids: Sequence[str]) -> int:
    """See `Shelf.remove`."""
    with shelf.writing():
        now = shelf.snapshot()
        found = now.view.by_ids(ids)
        rows = [(found.get(name) or now.get(name)).row for name in dict.fromkeys(ids)]
        if rows:
            head: Head = {"kind": "remove", "removed": rows, "counts": {"removed": len(rows)}}
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
        old = [known[i] for i, category in wanted.items() if known[i].product.category != category]
        if old:
            vectors = shelf.snapshot().pairs([stored.row for stored in old])
            changed = [
                _candidate(stored, pairs, _labelled(stored, wanted[stored.product.id]))
                for stored, pairs in zip(old, vectors, strict=True)
            ]
            shelf.commit(*_frame(changed, shelf.next_row), vectors)
    return len(old)


def undo_relabel(shelf: AnyShelf, generation: int) -> int:
    """Give the products that one generation relabelled their categories back, as a new change.

    Returns its generation. Raises GenerationNotFound if the shelf keeps no rows of before, or
    InputError if the generation was no relabelling, or a product of it was changed since.
    """
    with shelf.writing():
        now, before = shelf.snapshot(), shelf.snapshot(generation - 1)
        changed = now.view.by_rows(list(now.view.changed_in(generation, "relabel").values()))
        then = before.view.by_ids([stored.product.id for stored in changed.values()])
        given = {name: stored.product.category for name, stored in then.items()}
        moved = [s for s in changed.values() if s.product.category != given[s.product.id]]
        current = now.view.by_ids(list(given))
        later = [s.product.id for s in moved if s.row != _row_of(current.get(s.product.id))]
        if later or not moved:
            why = f"{later[0]!r} was changed since" if later else "it relabelled nothing"
            raise InputError(f"generation {generation} cannot be undone: {why}")
        relabel(shelf, {s.product.id: given[s.product.id] for s in moved})
    return shelf.generation


def _row_of(stored: StoredProduct | None) -> int | None:
    return stored.row if stored else None


def amend(shelf: AnyShelf, product_id: str, changes: Mapping[str, Any]) -> bool:
    """Give a product other fields (those of `Product`); False if it has them already.

    Only a new title, description or image is encoded. Raises ProductNotFound or InputError.
    """
    from kinshelf.store.ingest.add import upsert
    from kinshelf.store.ingest.pipeline import pairs_of

    with shelf.writing():
        old = shelf.snapshot().get(product_id)
        product = old.product.replace(**changes)
        if product == old.product:
            return False
        if product.image != old.product.image:
            report = upsert(shelf, [product], None, None, "update")
            if report.rejected:
                raise InputError(next(iter(report.examples.values())))
            return True
        changed = _candidate(old, shelf.snapshot().pairs([old.row])[0], product)
        if product.text != old.product.text:
            _read_again(shelf, changed)
        shelf.commit(
            *_frame([changed], shelf.next_row, "amend"), pairs_of([changed], shelf.dimension)
        )
    return True


def _read_again(shelf: AnyShelf, changed: Candidate) -> None:
    """Take the embedding of its new text; the picture's stays."""
    from kinshelf.store.log import records

    text = changed.product.text
    changed.text = shelf.writing_encoder().encode_texts([text])[0] if text else None
    if changed.text is None and changed.image is None:
        raise InputError(f"{changed.product.id!r} has no picture and would have no text")
    changed.content_hash = records.content_hash(changed.product, changed.image_hash)


def _refuse_unknown(shelf: AnyShelf, unknown: Sequence[str]) -> None:
    if unknown:
        shown = ", ".join(map(repr, unknown[:_SHOWN])) + (", ..." if len(unknown) > _SHOWN else "")
        raise ProductNotFound(
            f"{len(unknown)} of the ids are not on {shelf.name} ({shown}): nothing was changed;"
            " take them out, or add those products first"
        )


def _frame(changed: list[Candidate], first_row: int, kind: str = "relabel") -> tuple[Head, Body]:
    from kinshelf.store.log import records

    head: Head = {
        "kind": kind,
        "command": kind,
        "counts": {"inserted": 0, "updated": len(changed), "rejected": 0},
        "removed": [c.old.row for c in changed if c.old],
        "attributes": records.attribute_types(changed),
    }
    return head, {"rejects": [], "resolved": [], "products": records.columns(changed, first_row)}


def _labelled(stored: StoredProduct, category: str | None) -> Product:
    return stored.product.replace(category=category)


def candidate_of(stored: StoredProduct, pairs: FloatArray) -> Candidate:
    """A stored product on its way into a shelf once more, unchanged; `pairs` (2 * d,) float32."""
    from kinshelf.store.ingest.candidate import Candidate

    image, text = (half[0] for half in fusion.split(pairs[None]))
    same = Candidate(stored.product, 0, "stored", image_hash=stored.image_hash)
    same.image = image if stored.has_image else None
    same.text = text if stored.has_text else None
    same.content_hash = stored.content_hash
    if stored.image_error:
        same.image_rejected = ImageRejected(stored.image_error, "as it was")
    return same


def _candidate(stored: StoredProduct, pairs: FloatArray, product: Product) -> Candidate:
    """The product with what was computed of it before."""
    from kinshelf.store.log import records

    changed = candidate_of(stored, pairs)
    changed.old = stored
    changed.product = product
    # Adding the corrected source again must find the product unchanged, and so must a source
    # that brings its embeddings: the hash is made in the way that the product came in.
    supplied = (None, changed.image, changed.text)
    came_supplied = stored.content_hash == records.content_hash(stored.product, *supplied)
    parts = supplied if came_supplied else (stored.image_hash,)
    changed.content_hash = records.content_hash(changed.product, *parts)
    return changed


def read_changes(
    path: Path, *, delimiter: str | None = None, encoding: str | None = None
) -> dict[str, str]:
    """Ids and categories of a reviewed file: CSV, TSV, JSONL or Parquet, one product a row.

    A row's category is what stands in `new_category`; else its `suggested_category`, if a column
    `accept` is yes; else what stands in `category`. A row without any is passed over.
    Raises InputError: SourceNotFound, UnreadableSource, UnknownColumn, or DuplicateId if one id
    is given two categories.
    """
    from kinshelf.db.sources.readers import ReadOptions, open_rows
    from kinshelf.db.sources.source import BadRow
    from kinshelf.db.sources.values import text_of
    from kinshelf.db.text import clean_category, clean_key

    source = open_rows(path, ReadOptions(delimiter=delimiter, encoding=encoding))
    _check_columns(path, source.columns)
    changes: dict[str, str] = {}
    for row in source.rows():
        if isinstance(row, BadRow) and row.expected:
            continue
        if isinstance(row, BadRow):
            raise UnreadableSource(f"{path}: {row.message}: mend the row, then run this again")
        key = clean_key(text_of(row.get("id")))
        category = clean_category(_chosen({name: text_of(value) for name, value in row.items()}))
        if not key or category is None:
            continue
        if changes.setdefault(key, category) != category:
            raise DuplicateId(
                f"{path} gives {key!r} two categories, {changes[key]!r} and {category!r}: keep one"
            )
    return changes


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if "id" not in columns or not {"category", "new_category"} & set(columns):
        raise UnknownColumn(
            f"{path} has the columns {', '.join(columns)}: `id` is needed, and `category` or"
            " `new_category`"
        )


def _chosen(row: Mapping[str, str]) -> str:
    if row.get("new_category", "").strip():
        return row["new_category"]
    accepted = row.get("accept", "").strip().casefold() in _YES
    suggested = row.get("suggested_category", "").strip()
    return suggested if accepted and suggested else row.get("category", "")
