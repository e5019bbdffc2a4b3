"""The truth of a shelf read without trusting any of it: what is whole, what is damaged, and where.

`Ledger` refuses damage; this reads round it, for `verify` and for `verify --repair`. Every
checksum is checked before what it covers is used, and nothing is read as a whole but the log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.db.catalog.records import Body
from kinshelf.db.errors import KinshelfError, ShelfDamaged
from kinshelf.db.files import read_around, reading
from kinshelf.db.mapping import mapped
from kinshelf.store.log import frames
from kinshelf.store.log.frames import Frame
from kinshelf.store.log.layout import check_entries, epochs, log_path, vectors_path
from kinshelf.store.log.manifest import NAME, Manifest, read_manifest
from kinshelf.store.log.tip import read_tip
from kinshelf.store.maintain.rewrite import PART, Source
from kinshelf.store.maintain.salvage import Witness, older_twins, stand_in
from kinshelf.store.results import Finding
from kinshelf.store.search import fusion

REPAIR = "restore the shelf from a backup, or keep the rest with `kinshelf verify --repair`"
_NAMED = 8
_LEAST = frames.HEADER.size
"""Bytes that a frame takes at least."""
_MOST_LOST = 1 << 18
"""Changes that TIP may state beyond the log; a TIP that states more is no TIP of this log."""


class Survey:
    """The readable parts of the shelf in `directory`, and the faults of the rest.

    `frames` are those that count, without their bodies; `generation` the newest that is known to
    have been acknowledged, `readable` the newest that can be read, `missing` those whose frames
    are damaged, `lost_rows` flags a place
    (row number minus the first row) whose product cannot be kept; `lost_ids` names what is known
    of the products that are gone. `damaged_files` hold damage that a rewriting leaves behind.
    Raises ShelfNotFound or UnsupportedFormat.
    """

    def __init__(self, directory: Path) -> None:
        check_entries(directory)
        self.directory = directory
        self.findings: list[Finding] = []
        self.damaged_files: list[Path] = []
        self.lost_ids: list[str] = []
        self.frames: list[Frame] = []
        self.missing: list[int] = []
        self._stand_ins: list[Frame] = []
        self._gaps: list[tuple[int, int]] = []
        self.manifest = self._read_manifest()
        self._tip = read_tip(directory)  # before the log, which only gets ahead of it
        log = log_path(directory, self.manifest.epoch)
        self._log, unreadable = _bytes_of(log)
        if unreadable:
            self._damage(log, f"{len(unreadable)} sectors cannot be read, from {unreadable[0]} on")
        self._vectors_path = vectors_path(directory, self.manifest.epoch)
        self._walk()
        self._vectors = self._map_vectors()
        self.lost_rows = self._unreachable_rows()
        self._recollect()
        self._live = self.source().removed_at() > self.generation
        self._check_rows()

    @property
    def damaged(self) -> bool:
        """Whether the data is damaged: it cannot be opened, or holds rows that are not vectors."""
        return bool(self.damaged_files)

    def outdated(self) -> bool:
        """Whether another epoch has replaced the one that was read."""
        try:
            return read_manifest(self.directory).epoch > self.manifest.epoch
        except KinshelfError:
            return False

    @property
    def log_name(self) -> str:
        """The name of the log's file."""
        return log_path(self.directory, self.manifest.epoch).name

    def source(self) -> Source:
        """The readable parts, to be written again."""
        every = [*self.frames, *self._stand_ins]
        every.sort(key=lambda frame: (frame.generation, not frame.is_base))
        return Source(self.directory, self.manifest, every, self.next_row, self.read, self.gather)

    def read(self, frame: Frame) -> Body:
        """A frame's body; a frame that is in no log has none."""
        if frame.offset < 0:
            return {}
        whole = frames.decode(self._log, frame.offset)
        return whole.content() if whole else {}

    def gather(self, places: IntArray) -> FloatArray:
        """Embedding pairs at places that are not lost, (n, width) float32."""
        return np.array(self._vectors[places], dtype=np.float32)

    def _damage(self, path: Path, problem: str, remedy: str = REPAIR) -> None:
        self.findings.append(Finding(path.name, problem, remedy))
        if path not in self.damaged_files:
            self.damaged_files.append(path)

    def _note(self, path: Path, problem: str, remedy: str) -> None:
        self.findings.append(Finding(path.name, problem, remedy, harmless=True))

    # ---- the manifest

    def _read_manifest(self) -> Manifest:
        try:
            return read_manifest(self.directory)
        except ShelfDamaged:
            path = self.directory / NAME
            bad = path.is_file() and read_around(path)[1]
            known = "cannot be read" if bad else "its checksum does not match"
            problem = known if path.is_file() else "missing"
            self._damage(path, problem)
        return _guess_manifest(self.directory)

    # ---- the log

    def _walk(self) -> None:
        """Follow the frames; a damaged one costs what it stated, and nothing that others say."""
        manifest = self.manifest
        self.readable, self.rows, end = manifest.base_generation, manifest.first_row, 0
        self.next_row = self.rows
        while True:
            for frame in frames.frames(self._log, end, self.readable):
                if not self._possible(frame):
                    break
                self._take(frame)
                end = frame.end
            later = self._later(end)
            if later is None or later.generation + later.is_base <= self.readable:
                break
            self._skip(end, later)
            end = later.offset
        self.generation = self.readable
        self._judge_end(end)

    def _later(self, end: int) -> Frame | None:
        """The next frame that can be used; nothing lies so far ahead that nobody wrote it."""
        later = _later(self._log, end)
        while later is not None and not self._possible(later):
            later = _later(self._log, later.end)
        return later

    def _possible(self, frame: Frame) -> bool:
        """Whether kinshelf may have written it: its content, and rows that a log can tell of."""
        first, head = self.manifest.first_row, frame.head
        beyond = first + len(self._log)
        rows = [*(head.get("removed") or ()), head.get("first", first)]
        ahead = frame.generation - self.readable
        if not first <= min(rows) <= max(rows) < beyond or ahead > 1 + len(self._log) // _LEAST:
            return False
        if head.get("rows") and head["width"] != self._width:
            return False
        try:
            frame.content()
        except ShelfDamaged:
            return False
        return True

    def _take(self, frame: Frame) -> None:
        """Count a frame in; rows between the last one and its own were of a damaged frame."""
        head = frame.head
        self.frames.append(Frame(frame.generation, head, b"", frame.offset, frame.end))
        self.readable = frame.generation
        first = head.get("first", self.rows)
        if first > self.rows:
            self._gaps.append((self.rows, first))
        self.rows = max(self.rows, first) + head.get("rows", 0)
        self.next_row = max(self.next_row, self.rows, *(r + 1 for r in head.get("removed") or ()))

    def _skip(self, end: int, later: Frame) -> None:
        """Go on at a frame behind damage; the generations between are missing."""
        missing = range(self.readable + 1, later.generation + later.is_base)
        self.missing += missing
        lost = _span(missing) if missing else "a part of the compacted state cannot be read"
        self._damage(self.directory / self.log_name, f"damaged at byte {end}: {lost}")
        self.readable = later.generation - 1 + later.is_base

    def _judge_end(self, end: int) -> None:
        path = self.directory / self.log_name
        tip, manifest = self._tip, self.manifest
        if not path.is_file():
            self._damage(path, "missing")
        lost = tip.generation - self.readable if tip and tip.epoch == manifest.epoch else 0
        if tip and 0 < lost < _MOST_LOST:
            self.generation = tip.generation
            missing = range(self.readable + 1, tip.generation + 1)
            self.missing += missing
            self._damage(path, f"damaged at byte {end}: {_span(missing)}")
        elif end < manifest.sealed:
            self._damage(path, f"cut off at byte {end} of {manifest.sealed}")
        elif len(self._log) > end:
            problem = f"{len(self._log) - end} bytes of a change that was never acknowledged"
            self._note(path, problem, "none needed: the next writer cuts them off")

    # ---- what the damaged frames stated

    def _recollect(self) -> None:
        """Name the products whose frames are damaged, and drop rows that those replaced."""
        log = self.directory / self.log_name
        if log not in self.damaged_files:
            return
        known = dict(self._named_rows())
        witness = Witness.of(self.directory, self.manifest.epoch, known)
        now = time.time()
        self._stand_ins = [stand_in(generation, now, witness) for generation in self.missing]
        first, live = self.manifest.first_row, self.source().removed_at() > self.generation
        twins = older_twins((row, name) for row, name in known.items() if live[row - first])
        self.lost_rows[[row - first for row in twins]] = True
        gone = np.flatnonzero(self.lost_rows & live) + first
        self.lost_ids += [witness.ids[int(row)] for row in gone if int(row) in witness.ids]
        unnamed = sum(int(row) not in witness.ids and int(row) not in known for row in gone)
        if self.lost_ids or unnamed:
            self._tell_lost(unnamed)

    def _tell_lost(self, unnamed: int) -> None:
        """Add to the log's last finding what is lost with it."""
        named = _some(self.lost_ids) if self.lost_ids else ""
        more = f"{unnamed} whose names nothing knows" if unnamed else ""
        last = max(i for i, f in enumerate(self.findings) if f.file == self.log_name)
        lost = " and ".join(filter(None, (named, more)))
        found = self.findings[last]
        self.findings[last] = replace(found, problem=f"{found.problem}, with products {lost}")

    def _named_rows(self) -> Iterator[tuple[int, str]]:
        """The rows that readable frames name, with their ids."""
        for frame in self.frames:
            products = self.read(frame).get("products")
            if products:
                yield from zip(products["row"], products["id"], strict=True)

    # ---- the vectors

    @property
    def _width(self) -> int:
        return 2 * (self.manifest.dimension or 0)

    def _map_vectors(self) -> FloatArray:
        path, width = self._vectors_path, self._width
        have = path.stat().st_size // (4 * width) if width and path.is_file() else 0
        expected = self.rows - self.manifest.first_row
        if not path.is_file():
            self._damage(path, "missing")
        elif have > expected:
            problem = f"{have - expected} rows of a change that was never acknowledged"
            if not self.damaged:
                self._note(path, problem, "none needed: the next writer cuts them off")
        self.next_row = max(self.next_row, self.manifest.first_row + have)
        if not have:
            return np.empty((0, width), dtype=np.float32)
        return mapped(path, np.float32, (have, width))

    def _unreachable_rows(self) -> BoolArray:
        first = self.manifest.first_row
        lost = np.zeros(self.next_row - first, dtype=np.bool_)
        lost[self.rows - first :] = True
        for start, stop in self._gaps:
            lost[start - first : stop - first] = True
        return lost

    def _check_rows(self) -> None:
        for frame in self.frames:
            count = frame.head.get("rows", 0)
            products = self.read(frame).get("products") or {"row": [], "id": []}
            first = frame.head.get("first", self.manifest.first_row)
            if products["row"] != list(range(first, first + count)):
                problem = f"generation {frame.generation} names other rows than it wrote"
                self._damage(self.directory / self.log_name, problem)
            elif count:
                self._check_vectors(frame, products)

    def _check_vectors(self, frame: Frame, products: dict[str, list[Any]]) -> None:
        start = frame.head["first"] - self.manifest.first_row
        stop = start + frame.head["rows"]
        if self._digest(start, stop) != frame.head["vectors"]:
            ids = self._drop(range(start, stop), start, products)
            problem = (
                f"the vectors of generation {frame.generation} (rows {frame.head['first']} to"
                f" {frame.head['first'] + frame.head['rows'] - 1}) do not match their checksum;"
                f" products {_some(ids)} are lost"
            )
            self._damage(self._vectors_path, problem)
            return
        for place, problem in self._bad_norms(start, stop, products):
            name = self._drop([place], start, products)[0]
            row = place + self.manifest.first_row
            remedy = "remove the product and add it again, or run `kinshelf verify --repair`"
            self._damage(self._vectors_path, f"row {row} (product {name!r}): {problem}", remedy)

    def _drop(
        self, places: range | list[int], start: int, products: dict[str, list[Any]]
    ) -> list[str]:
        self.lost_rows[list(places)] = True
        ids = [products["id"][place - start] for place in places if self._live[place]]
        self.lost_ids += ids
        return ids

    def _digest(self, start: int, stop: int) -> str | None:
        # Read, not mapped: a bad sector of a mapping, or its end cut off, ends the process.
        digest, row = xxhash.xxh3_64(), 4 * self._width
        try:
            with reading(self._vectors_path) as file:
                file.seek(start * row)
                for block in _blocks(start, stop):
                    digest.update(file.read((block.stop - block.start) * row))
        except (FileNotFoundError, ShelfDamaged):
            return None
        return digest.hexdigest() if stop <= len(self._vectors) else None

    def _bad_norms(
        self, start: int, stop: int, products: dict[str, list[Any]]
    ) -> Iterator[tuple[int, str]]:
        """Live rows whose embeddings are neither unit nor, where a modality is missing, zero."""
        for block in _blocks(start, stop):
            pairs = fusion.split(self._vectors[block])
            for half, name in zip(pairs, ("image", "text"), strict=True):
                given = products[f"has_{name}"][block.start - start : block.stop - start]
                norms = np.linalg.norm(half.astype(np.float64), axis=1)
                wrong = ~(np.abs(norms - np.asarray(given, dtype=np.float64)) < 1e-3)
                for at in np.flatnonzero(wrong & self._live[block]):
                    yield block.start + int(at), f"its {name} half has norm {norms[at]:.4f}"


def _blocks(start: int, stop: int) -> Iterator[slice]:
    return (slice(at, min(at + PART, stop)) for at in range(start, stop, PART))


def _span(generations: range) -> str:
    return f"generations {generations[0]} to {generations[-1]} are lost"


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_NAMED]))
    rest = len(names) - _NAMED
    return f"{shown} and {rest} more" if rest > 0 else shown or "(none)"


def _bytes_of(path: Path) -> tuple[memoryview, list[int]]:
    try:
        data, bad = read_around(path)
        return memoryview(data), bad
    except FileNotFoundError:
        return memoryview(b""), []


def _later(data: memoryview, offset: int) -> Frame | None:
    """The first valid frame at or after `offset`, at its place in `data`."""
    if found := frames.decode(data, offset):
        return found
    found = frames.later_frame(data[offset:], 0)
    return frames.decode(data, offset + found.offset) if found else None


def _guess_manifest(directory: Path) -> Manifest:
    """A manifest as the log tells of it, where there is none to be trusted.

    Of two epochs the older counts: it is removed only once the younger is whole, and before
    anything is added to that.
    """
    epoch = min(epochs(directory), default=0)
    data, _ = _bytes_of(log_path(directory, epoch))
    first = _later(data, 0)
    found: list[Frame] = []
    frame = first
    while frame is not None:
        found.append(frame)
        frame = _later(data, frame.end)
    identities = [f.head["shelf"] for f in found if "shelf" in f.head]
    firsts = [f.head["first"] for f in found if "first" in f.head]
    widths = [f.head["width"] for f in found if "width" in f.head]
    known: dict[str, Any] = {"dimension": widths[0] // 2 if widths else None}
    known |= identities[-1] if identities else _legible_identity(directory)
    base = first.generation - (not first.is_base) if first else 0
    return Manifest(epoch=epoch, first_row=min(firsts, default=0), base_generation=base, **known)


def _legible_identity(directory: Path) -> dict[str, Any]:
    """What a damaged manifest seems to say of the encoder; better than nothing, where it reads."""
    try:
        fields = json.loads(read_around(directory / NAME)[0][: 1 << 20].partition(b"\n")[0])
        names = ("encoder", "revision", "fingerprint", "pictures")
        return {name: fields[name] for name in names if isinstance(fields.get(name), str)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
