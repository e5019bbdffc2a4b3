"""The shelf: vectors, index and catalogue as one thing that is committed or not."""

from kinshelf.db.product import Product, Reject
from kinshelf.store.compact import CompactReport
from kinshelf.store.report import AddOptions, AddReport, Finding, Neighbour, SearchResult
from kinshelf.store.shelf import Shelf
from kinshelf.store.snapshot import Neighbours, Snapshot

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
