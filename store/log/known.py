"""A writer's lookup of ids and open rejects, in memory.

A dictionary answers in the same time however large the shelf; the catalogue would have to take
in each change first, and then be scanned.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kinshelf.store.log.records import OpenRejects

if TYPE_CHECKING:
    from kinshelf.db.catalog.queries import View
    from kinshelf.db.catalog.records import Body
    from kinshelf.store.log.ledger import Ledger


class Known:
    """Ids and the rows that they were last given, and open rejects, as of `generation`.

    An id whose product was removed stays: the ledger knows which rows are gone.
    """

    def __init__(self, view: View) -> None:
        self.generation = view.generation
        self.rejects = OpenRejects(view.rejects())
        self._rows = view.row_by_id()

    def catch_up(self, ledger: Ledger) -> None:
        """Take in the changes since, read from the log."""
        lacking = ledger.heads[self.generation - ledger.manifest.base_generation :]
        for frame in ledger.bodies(lacking) if lacking else ():
            self.apply(frame.generation, frame.content())

    def apply(self, generation: int, body: Body) -> None:
        """Take in one committed change; changes come in order."""
        if products := body.get("products"):
            self._rows.update(zip(products["id"], products["row"], strict=True))
        for reject in body.get("rejects", ()):
            self.rejects.add(reject)
        self.rejects.settle(body.get("resolved", ()))
        self.generation = generation

    def rows(self, ids: Iterable[str]) -> list[int]:
        """The rows of those of the ids that were ever in the shelf."""
        return [row for name in ids if (row := self._rows.get(name)) is not None]
