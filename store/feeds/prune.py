"""Products that their source no longer has: marked as gone, or removed, within a limit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from kinshelf.db.errors import InputError
from kinshelf.db.product import GONE
from kinshelf.store.ingest.candidate import Candidate, carry_over
from kinshelf.store.ingest.edit import frame_of

if TYPE_CHECKING:
    from kinshelf.db.catalog.records import Head
    from kinshelf.db.product import StoredProduct
    from kinshelf.store.base import AnyShelf

Prune = Literal["mark", "remove"]
KIND = "prune"
LIMIT = 0.05
"""Share of the products that may go at once: a feed that broke off half-way has lost more."""
_EXAMPLES = 20


@dataclass(slots=True)
class PruneReport:
    """Of `products` that were compared, `gone` are not in the source and were not marked before;
    `changed` were marked or removed, none of them where `refused`: more than `limit` would go.
    `examples` are the first ids."""

    how: Prune
    products: int
    gone: int
    limit: float
    changed: int = 0
    refused: bool = False
    examples: list[str] = field(default_factory=list)
    generation: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def prune(
    shelf: AnyShelf,
    kept: Collection[str],
    *,
    how: Prune = "mark",
    limit: float = LIMIT,
    where: str | None = None,
) -> PruneReport:
    """Mark the products whose ids are not among `kept` as gone, or remove them, as one change.

    `where` names those that are compared, such as the ones of one feed; None: all. A marked product
    has the attribute `gone`, until a source brings it again. Raises FilterError, or InputError for
    a limit that is no share.
    """
    if not 0 <= limit <= 1:
        raise InputError(f"the limit is {limit:g}: give a share from 0 to 1")
    with shelf.writing():
        products, missing = _missing(shelf, kept, where)
        if how == "mark":
            missing = [s for s in missing if s.product.attributes.get(GONE) is not True]
        report = PruneReport(how, products, len(missing), limit)
        report.examples = [stored.product.id for stored in missing[:_EXAMPLES]]
        report.refused = len(missing) > limit * products
        if missing and not report.refused:
            _commit(shelf, missing, how)
            report.changed = len(missing)
        report.generation = shelf.generation
    return report


def _missing(
    shelf: AnyShelf, kept: Collection[str], where: str | None
) -> tuple[int, list[StoredProduct]]:
    """How many products are compared, and those that are not kept."""
    view = shelf.snapshot().view
    condition = shelf.snapshot().filter(where)
    there, others = view.count(condition), set(kept)
    found = []
    for start in range(0, there, _BLOCK):
        part = view.select(condition, limit=_BLOCK, offset=start)
        found += [stored for stored in part if stored.product.id not in others]
    return there, found


_BLOCK = 4096


def _commit(shelf: AnyShelf, missing: list[StoredProduct], how: Prune) -> None:
    command = f"add --prune {how}"
    if how == "remove":
        rows = [stored.row for stored in missing]
        head: Head = {
            "kind": KIND, "command": command, "removed": rows, "counts": {"removed": len(rows)},
        }  # fmt: skip
        shelf.commit(head, {})
        return
    vectors = shelf.snapshot().pairs([stored.row for stored in missing])
    changed = [_marked(stored) for stored in missing]
    for candidate, pair in zip(changed, vectors, strict=True):
        carry_over(candidate, pair)
    shelf.commit(*frame_of(changed, shelf.next_row, KIND, command), vectors)


def _marked(stored: StoredProduct) -> Candidate:
    attributes = stored.product.attributes | {GONE: True}
    product = stored.product.replace(attributes=attributes)
    return Candidate(product, 0, "stored", old=stored, decided=stored.decided)
