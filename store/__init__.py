"""The shelf: vectors, index and catalogue as one thing that is committed or not."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinshelf.db.product import Product, Reject
    from kinshelf.store.results import (
        AddOptions,
        AddReport,
        CompactReport,
        Finding,
        Neighbour,
        SearchResult,
    )
    from kinshelf.store.search.neighbours import Neighbours
    from kinshelf.store.shelf import DirectoryShelf
    from kinshelf.store.snapshot import Snapshot

__all__ = [
    "AddOptions",
    "AddReport",
    "CompactReport",
    "DirectoryShelf",
    "Finding",
    "Neighbour",
    "Neighbours",
    "Product",
    "Reject",
    "SearchResult",
    "Snapshot",
]

# NumPy alone takes longer to import than `kinshelf --help` may: who asks for a name waits for it.
_HOMES = {
    "AddOptions": "store.results",
    "AddReport": "store.results",
    "CompactReport": "store.results",
    "Finding": "store.results",
    "Neighbour": "store.results",
    "Neighbours": "store.search.neighbours",
    "Product": "db.product",
    "Reject": "db.product",
    "SearchResult": "store.results",
    "DirectoryShelf": "store.shelf",
    "Snapshot": "store.snapshot",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"kinshelf.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
