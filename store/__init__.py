"""The shelf: vectors, index and catalogue as one thing that is committed or not."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinshelf.db.product import Product, Reject
    from kinshelf.store.compact import CompactReport
    from kinshelf.store.report import AddOptions, AddReport, Finding, Neighbour, SearchResult
    from kinshelf.store.shelf import Shelf
    from kinshelf.store.snapshot import Snapshot
    from kinshelf.store.telling import Neighbours

__all__ = [
    "AddOptions",
    "AddReport",
    "CompactReport",
    "Finding",
    "Neighbour",
    "Neighbours",
    "Product",
    "Reject",
    "SearchResult",
    "Shelf",
    "Snapshot",
]

# NumPy alone takes longer to import than `kinshelf --help` may: who asks for a name waits for it.
_HOMES = {
    "AddOptions": "store.report",
    "AddReport": "store.report",
    "CompactReport": "store.compact",
    "Finding": "store.report",
    "Neighbour": "store.report",
    "Neighbours": "store.telling",
    "Product": "db.product",
    "Reject": "db.product",
    "SearchResult": "store.report",
    "Shelf": "store.shelf",
    "Snapshot": "store.snapshot",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"kinshelf.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
