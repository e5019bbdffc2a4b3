"""Writing a shelf's truth again, as another epoch, with only what is still needed.

The new log begins with base frames, which hold the oldest state that is kept; the changes since
follow, their rows renumbered. Generations keep their numbers, rows get new ones, which begin
where the old ones ended. Nothing counts before the manifest names the new epoch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import xxhash

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.db.catalog.records import Body, Head, ProbeRecord, RejectRecord
from kinshelf.db.catalog.tables import DECIDED
from kinshelf.store.log import disk
from kinshelf.store.log import frames as log
from kinshelf.store.log.frames import Frame
from kinshelf.store.log.layout import log_path, vectors_path
from kinshelf.store.log.manifest import FORMAT, Manifest, write_manifest

PART = 4096
"""Entries in a base frame, and rows copied at a time: what bounds the memory."""
_OF_ROWS = ("first", "rows", "width", "vectors")


@dataclass(frozen=True, slots=True)
class Source:
    """A truth to write again: its frames in order without their bodies, and how to read the rest.

    `read` gives a frame's body; `gather` the embedding pairs at places (row number minus the
    manifest's first row), (n, width) float32; `next_row` is the number that no row has had yet.
    """

    directory: Path
    manifest: Manifest
    frames: Sequence[Frame]
    next_row: int
    read: Callable[[Frame], Body]
    gather: Callable[[IntArray], FloatArray]

    def removed_at(self) -> IntArray:
        """The generation that removed the row at each place; a large number: none did."""
        first = self.manifest.first_row
        removed = np.full(self.next_row - first, np.iinfo(np.int64).max, dtype=np.int64)
        for frame in self.frames:
            rows = np.asarray(frame.head.get("removed") or [], dtype=np.int64)
            removed[rows - first] = frame.generation
        return removed


@dataclass(frozen=True, slots=True)
class Left:
    """The parts that a rewriting leaves out: rows by a flag a place, and versions of probes."""

    rows: BoolArray
    probes: frozenset[int] = frozenset()


class _Writer:
    """The files of a new epoch, written front to back and synced once."""

    def __init__(self, directory: Path, epoch: int, first_row: int) -> None:
        self._paths = log_path(directory, epoch), vectors_path(directory, epoch)
        for path in self._paths:
            disk.unlink(path)
        self._log, self._vectors = (disk.create(path) for path in self._paths)
        self._first_row = self.rows = first_row
        self.log_end = 0

    def write(self, generation: int, head: Head, body: Body, blocks: Iterator[FloatArray]) -> None:
        """One frame and its vectors."""
        digest, first, width = xxhash.xxh3_64(), self.rows, 0
        for block in blocks:
            width = block.shape[1]
            data = np.ascontiguousarray(block).view(np.uint8).reshape(-1).data
            disk.write(self._vectors, data, (self.rows - self._first_row) * width * 4)
            digest.update(data)
            self.rows += len(block)
        if self.rows > first:
            head = head | {"first": first, "rows": self.rows - first, "width": width}
            head["vectors"] = digest.hexdigest()
        frame = log.encode(generation, head, body)
        disk.write(self._log, frame, self.log_end)
        self.log_end += len(frame)

    def finish(self) -> None:
        """Make it durable: vectors first, as in every change."""
        disk.sync(self._vectors)
        disk.sync(self._log)

    def close(self, *, remove: bool) -> None:
        """Close the files, and remove them if they were not finished."""
        os.close(self._log)
        os.close(self._vectors)
        if remove:
            for path in self._paths:
                disk.unlink(path)


@dataclass(slots=True)
class _Base:
    """Everything of the oldest state but its products, as the changes up to it are met."""

    rejects: dict[str, RejectRecord] = field(default_factory=dict)
    attributes: dict[tuple[str, str], int] = field(default_factory=dict)
    probes: list[ProbeRecord] = field(default_factory=list)
    commits: list[Head] = field(default_factory=list)

    def take(self, frame: Frame, body: Body) -> None:
        """Take in a frame: a change, or a part of an older base."""
        for entry in body.get("rejects", ()):
            came = entry if frame.is_base else {**entry, "generation": frame.generation}
            self.rejects[entry["key"]] = came
        for key in body.get("resolved", ()):
            self.rejects.pop(key, None)
        if frame.is_base:
            self._take_base(body)
        else:
            self._take_change(frame.generation, frame.head)

    def _take_base(self, body: Body) -> None:
        for name, kind, generation in body.get("attributes", ()):
            self.attributes.setdefault((name, kind), generation)
        self.probes += body.get("probes", ())
        self.commits += body.get("commits", ())

    def _take_change(self, generation: int, head: Head) -> None:
        for name, kinds in head.get("attributes", {}).items():
            for kind in kinds:
                self.attributes.setdefault((name, kind), generation)
        if probe := head.get("probe"):
            self.probes.append({**probe, "generation": generation})
        names = ("time", "kind", "command", "counts", "operation", "who")
        stated = {name: value for name, value in head.items() if name in names}
        self.commits.append(cast("Head", {"generation": generation, **stated}))

    def parts(self, left_probes: frozenset[int]) -> Iterator[Body]:
        """Bodies of base frames, none of them large; always one."""
        rejects = list(self.rejects.values())
        for start in range(0, len(rejects), PART):
            yield {"rejects": rejects[start : start + PART]}
        for start in range(0, len(self.commits), PART):
            yield {"commits": self.commits[start : start + PART]}
        attributes = [(*named, generation) for named, generation in self.attributes.items()]
        probes = [p for p in self.probes if p["version"] not in left_probes]
        yield {"attributes": attributes, "probes": probes}


def _without_vectors(head: Head) -> Head:
    return cast("Head", {name: value for name, value in head.items() if name not in _OF_ROWS})


class Rewriting:
    """One rewriting of `source` that keeps generation `oldest` and those after it."""

    def __init__(self, source: Source, oldest: int, left: Left | None = None) -> None:
        removed = source.removed_at()
        self._source, self._oldest = source, oldest
        self._left = left or Left(np.zeros(len(removed), dtype=np.bool_))
        self._kept = (removed > oldest) & ~self._left.rows
        self._first_row = source.next_row
        self._new_rows = self._first_row - 1 + np.cumsum(self._kept, dtype=np.int64)

    @property
    def count(self) -> int:
        """The number of rows kept."""
        return int(np.count_nonzero(self._kept))

    def write(self, epoch: int) -> Manifest:
        """Write it all as `epoch` and flip the manifest, which is returned. Raises OSError."""
        source = self._source
        writer = _Writer(source.directory, epoch, self._first_row)
        whole = False
        try:
            self._write_base(writer)
            for frame in self._frames(after=True):
                self._write_change(writer, frame)
            writer.finish()
            whole = True
        finally:
            writer.close(remove=not whole)
        manifest = source.manifest.replace(
            format=FORMAT, epoch=epoch, first_row=self._first_row, base_generation=self._oldest,
            sealed=writer.log_end,
        )  # fmt: skip
        write_manifest(source.directory, manifest)
        return manifest

    def _frames(self, *, after: bool) -> Iterator[Frame]:
        return (f for f in self._source.frames if (f.generation > self._oldest) == after)

    # ---- the oldest state

    def _write_base(self, writer: _Writer) -> None:
        base = _Base()
        for columns in self._parts(base):
            self._write_part(writer, columns)
        for body in base.parts(self._left.probes):
            writer.write(self._oldest, self._base_head(), body, iter(()))

    def _base_head(self) -> Head:
        return {"kind": log.BASE, "time": time.time(), "shelf": self._source.manifest.identity()}

    def _write_part(self, writer: _Writer, columns: dict[str, list[Any]]) -> None:
        places = self._places(columns)
        body: Body = {"products": columns | {"row": self._new_rows[places].tolist()}}
        writer.write(self._oldest, self._base_head(), body, self._blocks(places))

    def _parts(self, base: _Base) -> Iterator[dict[str, list[Any]]]:
        """The products of the oldest state in pieces, while `base` takes in the rest."""
        waiting: dict[str, list[Any]] = {"row": []}
        for frame in self._frames(after=False):
            body = self._source.read(frame)
            base.take(frame, body)
            for name, values in self._kept_of(frame, body).items():
                waiting.setdefault(name, []).extend(values)
            while len(waiting["row"]) >= PART:
                yield {name: values[:PART] for name, values in waiting.items()}
                waiting = {name: values[PART:] for name, values in waiting.items()}
        if waiting["row"]:
            yield waiting

    def _kept_of(self, frame: Frame, body: Body) -> dict[str, list[Any]]:
        """The products of a frame that are kept, with the generation that they came in with."""
        products = body.get("products")
        if not products:
            return {}
        rows = products["row"]
        columns = (
            products if frame.is_base else products | {"added": [frame.generation] * len(rows)}
        )
        columns = {DECIDED: [None] * len(rows)} | columns  # which earlier versions did not write
        kept = np.flatnonzero(self._kept[self._places(products)])
        return {name: [values[i] for i in kept] for name, values in columns.items() if len(kept)}

    # ---- the changes since

    def _write_change(self, writer: _Writer, frame: Frame) -> None:
        body = self._source.read(frame)
        rest, head = body.copy(), _without_vectors(frame.head)
        rest.pop("products", None)
        if removed := head.pop("removed", None):
            head["removed"] = self._renumbered(removed)
        if "probe" in head and head["probe"]["version"] in self._left.probes:
            del head["probe"]
        places = np.empty(0, dtype=np.int64)
        if columns := self._kept_of(frame, body):
            del columns["added"]
            places = self._places(columns)
            rest["products"] = columns | {"row": self._new_rows[places].tolist()}
        writer.write(frame.generation, head, rest, self._blocks(places))

    def _renumbered(self, rows: list[int]) -> list[int]:
        places = np.asarray(rows, dtype=np.int64) - self._source.manifest.first_row
        return [int(row) for row in self._new_rows[places[self._kept[places]]]]

    def _places(self, columns: dict[str, list[Any]]) -> IntArray:
        return np.asarray(columns["row"], dtype=np.int64) - self._source.manifest.first_row

    def _blocks(self, places: IntArray) -> Iterator[FloatArray]:
        for start in range(0, len(places), PART):
            yield self._source.gather(places[start : start + PART])
