"""What a lost part of the log stated, as far as something else still knows it.

The catalogue's snapshot is derived from the log, so it may remember the names of products whose
frame is damaged, and which rows a damaged frame removed. It is believed only where its checksum
holds and it agrees with every row that the log can still read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kinshelf.db.catalog.records import Head
from kinshelf.db.catalog.tables import Catalog
from kinshelf.store.log.catalog_cache import CATALOG
from kinshelf.store.log.frames import Frame

LOST = "lost"
"""The kind of the empty change that stands where a damaged one was."""


@dataclass(frozen=True, slots=True)
class Witness:
    """Rows that a catalogue knows: `ids` by row, and by generation the rows that it removed.

    A row that its generation replaced is not among the removed: with the newer one lost, the older
    is the best that is left.
    """

    ids: Mapping[int, str] = field(default_factory=dict)
    removed: Mapping[int, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, directory: Path, epoch: int, known: Mapping[int, str]) -> Witness:
        """What the snapshot in `directory` knows; nothing unless it agrees with `known` rows."""
        catalog = Catalog.load(directory / CATALOG, lambda state: _of_epoch(state, epoch))
        if catalog is None:
            return cls()
        rows = catalog.connection.execute("SELECT row, id, added, removed FROM products").fetchall()
        catalog.close()
        ids = {row: name for row, name, *_ in rows}
        if any(known.get(row, name) != name for row, name in ids.items()):
            return cls()
        came = {(name, added) for _, name, added, _ in rows}
        removed: dict[int, list[int]] = defaultdict(list)
        for row, name, _, by in rows:
            if by is not None and (name, by) not in came:
                removed[by].append(row)
        return cls(ids, removed)


def _of_epoch(state: Mapping[str, Any], epoch: int) -> bool:
    return str(state.get("anchor", "")).split("-")[0] == str(epoch)


def stand_in(generation: int, time: float, witness: Witness) -> Frame:
    """An empty change in place of a damaged one; it removes what that is known to have removed."""
    head: Head = {"time": time, "kind": LOST, "command": "verify --repair"}
    if removed := witness.removed.get(generation):
        head["removed"] = removed
    return Frame(generation, head, b"", -1)


def older_twins(rows: Iterable[tuple[int, str]]) -> dict[int, str]:
    """Of live rows by number, those whose id a later row has too: a lost change replaced them."""
    newest: dict[str, int] = {}
    older: dict[int, str] = {}
    for row, name in sorted(rows):
        if name in newest:
            older[newest[name]] = name
        newest[name] = row
    return older
