"""The records of the log and of the catalogue's tables, as types: what is JSON on the disk.

They cost nothing when the program runs; the checker holds every writer and reader of a frame to
the same names.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

Columns = dict[str, list[Any]]
"""Products, one list a column; see `db.catalog.tables.COLUMNS`."""


class Counts(TypedDict, total=False):
    """How many products a change supplied, changed, took and refused."""

    inserted: int
    updated: int
    removed: int
    rejected: int


class ProbeRecord(TypedDict):
    """A probe; `files` are names and hashes. `generation` is not in the frame of its own change."""

    version: int
    trained_on: int
    classes: int
    files: dict[str, str]
    metrics: dict[str, Any]
    generation: NotRequired[int]


class RejectRecord(TypedDict):
    """A row that was refused; `record` is its product as JSON, to try again."""

    key: str
    source: str
    position: int
    id: str | None
    reason: str
    message: str
    kept: bool
    record: str | None
    generation: NotRequired[int]


class Head(TypedDict, total=False):
    """The head of a frame: what opening a shelf needs.

    `removed` are row numbers, `attributes` the types of each attribute. `first`, `rows`, `width`
    and `vectors` (a hash) describe the vectors that came, `shelf` is the manifest's identity.
    `operation` is the generation of the first change of the same command, `who` ran it; earlier
    versions wrote neither. `generation` stands only in the commits that a compacted log begins
    with.
    """

    kind: str
    command: str
    time: float
    counts: Counts
    removed: list[int]
    attributes: dict[str, list[str]]
    probe: ProbeRecord
    shelf: dict[str, Any]
    first: int
    rows: int
    width: int
    vectors: str
    operation: int
    who: str
    generation: int


class Body(TypedDict, total=False):
    """The body of a frame. The last three stand only where a compacted log begins.

    `attributes` are (name, type, generation).
    """

    products: Columns
    rejects: list[RejectRecord]
    resolved: list[str]
    attributes: list[tuple[str, str, int]]
    probes: list[ProbeRecord]
    commits: list[Head]


class CommitRecord(TypedDict):
    """A committed change, as `View.commits` lists it; `time` is ISO 8601 in UTC.

    `operation` is the generation of the first change of the same command; `who` ran it, "" where
    that was not written down.
    """

    generation: int
    time: str
    kind: str
    command: str
    inserted: int
    updated: int
    removed: int
    rejected: int
    operation: int
    who: str


class HistoryRecord(CommitRecord):
    """A change of the history; `kept`: whether `at=` can ask for its generation."""

    kept: bool
