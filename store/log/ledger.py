"""The commit protocol: the one module that changes the truth of a shelf.

A change is: vectors written and synced, then one log frame written and synced, then acknowledged.
The frame is the commit point and its number the generation. What a crash leaves behind the last
whole frame (a torn frame, vectors without a frame) was never acknowledged; readers ignore it and
the next writer cuts it off. Anything else that does not fit is reported as damage.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xxhash

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.db.catalog.records import Body, Head
from kinshelf.db.errors import ShelfDamaged, ShelfError, ShelfPoisoned
from kinshelf.db.files import reading
from kinshelf.db.mapping import is_whole
from kinshelf.store.log import disk, frames
from kinshelf.store.log.checksums import check_vectors
from kinshelf.store.log.frames import Frame
from kinshelf.store.log.layout import check_entries, log_path, sweep, vectors_path
from kinshelf.store.log.lock import WriterLock, alone
from kinshelf.store.log.manifest import Manifest, read_manifest, stamp_of, write_manifest
from kinshelf.store.log.proof import Proof, check_length, mapped_vectors, size_of
from kinshelf.store.log.tip import NAME as TIP
from kinshelf.store.log.tip import Tip, read_tip, write_tip

T = TypeVar("T")
logger = logging.getLogger(__name__)
LIVE = np.iinfo(np.int64).max  # in `removed_at`: not removed
_UNREAD = (-1, -1)  # a stamp that no manifest has: read everything again


class Ledger:
    """The committed truth of one shelf as this handle has read it.

    `generation` is the newest change read, `rows` the number after the newest row, and
    `removed_at[row - first_row]` the generation that removed a row, or LIVE. `base` are the
    frames that hold the oldest state kept, `heads` the changes since, without their bodies.
    `loads` counts how often all was read from the start, as it is for a new epoch.
    """

    def __init__(self, directory: Path, lock: WriterLock | None = None) -> None:
        self.directory, self._lock = directory, lock
        self.reading = threading.RLock()  # threads take turns at taking in what is new
        self._poison: str | None = None
        self._swept: int | None = None
        self.loads = self._begun = 0
        check_entries(directory)
        self._load()

    def _load(self) -> None:
        self.loads += 1
        while True:
            try:
                self._read_epoch()
            except (ShelfDamaged, FileNotFoundError):
                # What was read may have been compacted away meanwhile: then there is another.
                if not self.outdated():
                    raise
            else:
                return

    def outdated(self) -> bool:
        """Whether another manifest has replaced the one that was read."""
        return stamp_of(self.directory) != self._stamp

    def _read_epoch(self) -> None:
        self._stamp = stamp_of(self.directory)  # first: one that replaces it must be noticed
        self.manifest = read_manifest(self.directory)
        self.generation = self.manifest.base_generation
        self.rows = self.first_row = self.manifest.first_row
        self.log_end, self._log_path = 0, log_path(self.directory, self.manifest.epoch)
        self._proof: Proof | None = None
        self.base: list[Frame] = []
        self.heads: list[Frame] = []
        self._base_rows = self.first_row
        self._rows_after: list[int] = []
        self._recorded: dict[str, Any] | None = None
        self._removed_at = np.empty(0, dtype=np.int64)
        self._mapping: FloatArray | None = None
        self.refresh_log()

    # ---- reading

    @property
    def width(self) -> int:
        """Floats in a row: both embeddings of a pair; 0 while unknown."""
        return 2 * (self.manifest.dimension or 0)

    def refresh(self) -> bool:
        """Read what others have committed since. True if a new epoch was begun."""
        with self.reading:
            return self._refresh()

    def _refresh(self) -> bool:
        stamp = stamp_of(self.directory)
        if stamp != self._stamp:
            manifest = read_manifest(self.directory)
            if manifest.epoch != self.manifest.epoch or self._stamp == _UNREAD:
                self._load()
                return True
            self.manifest, self._stamp = manifest, stamp
        if not self._same_file() and self._reopened():
            return True
        try:
            if self._mapping is not None:
                check_length(self._truth()[1], self._mapping.nbytes)
            self.refresh_log()
        except (ShelfDamaged, FileNotFoundError):
            if not self.outdated():
                raise
            return self._refresh()
        return False

    def _same_file(self) -> bool:
        """Whether the log has the status of the one that was read."""
        try:
            status = self._log_path.stat()
        except FileNotFoundError:
            return True  # reading it reports it
        known = self._proof and (*self._proof.identity, self.log_end)
        return (status.st_dev, status.st_ino, status.st_size) == known

    def _reopened(self) -> bool:
        """Read all anew if another log has taken the place of the one that was read.

        A backup that is put back gives offsets and generations a second time."""
        if self._proof is None or self._proof.holds(self._log_path):
            return False
        logger.warning("the files of %s were replaced while it was open: read anew", self.directory)
        self._load()
        return True

    def settled(self, read: Callable[[], T]) -> T:
        """Run `read` on the newest state; again if a compaction removed its files meanwhile."""
        with self.reading:
            while True:
                self.refresh()
                try:
                    return read()
                except ShelfDamaged:
                    if not self.outdated():
                        raise

    def refresh_log(self) -> None:
        """Take in every whole frame after the last one read."""
        path = self._log_path
        if self.log_end and size_of(path) == self.log_end:
            self._proof = self._proof or Proof.of(path, self._last())
            return
        tip = read_tip(self.directory)  # before the log, which only gets ahead of it
        size = size_of(path)
        if size < self.log_end:
            raise ShelfDamaged(f"{path} was cut from {self.log_end} to {size} bytes")
        if size > self.log_end:
            self._take_in(path, size)
        self._proof = Proof.of(path, self._last())
        if self.log_end < self.manifest.sealed:
            raise ShelfDamaged(
                f"{path} is damaged at byte {self.log_end}: {self.manifest.sealed} bytes of it were"
                " written by a compaction; restore the shelf from a backup, or keep what can be"
                " read with `kinshelf verify --repair`"
            )
        if tip and tip.epoch == self.manifest.epoch and tip.generation > self.generation:
            raise ShelfDamaged(
                f"{path} is damaged at byte {self.log_end}: generations {self.generation + 1} to"
                f" {tip.generation} were acknowledged but cannot be read; restore the shelf from"
                " a backup, or keep what is before them with `kinshelf verify --repair`"
            )

    def _last(self) -> Frame | None:
        return next(iter((self.heads or self.base)[-1:]), None)

    def _take_in(self, path: Path, size: int) -> None:
        with reading(path) as file:
            found, rest = frames.read_frames(file, self.log_end, size, self.generation)
        end = found[-1].end if found else self.log_end
        last = found[-1].generation if found else self.generation
        frames.refuse_damage(path, rest, end, last)
        frames.check_bounds(path, found, self.first_row, self.rows, self.width)
        check_vectors(vectors_path(self.directory, self.manifest.epoch), self.first_row, found)
        try:
            for frame in found:
                self._advance(frame)
        except BaseException:  # an interruption between two of its steps
            self._stamp = _UNREAD
            raise

    def _advance(self, frame: Frame) -> None:
        self.rows += frame.head.get("rows", 0)
        self._grow(self.rows - self.first_row)
        if removed := frame.head.get("removed"):
            places = np.asarray(removed, dtype=np.int64) - self.first_row
            self._removed_at[places] = frame.generation
        self.log_end, self.generation = frame.end, frame.generation
        self._recorded = frame.head.get("shelf", self._recorded)
        if frame.is_base:
            self.base.append(frame)
            self._base_rows = self.rows
        else:
            self.heads.append(frame)
            self._rows_after.append(self.rows)

    def _grow(self, count: int) -> None:
        if count > len(self._removed_at):
            larger = np.full(max(1024, count + count // 2), LIVE, dtype=np.int64)
            larger[: len(self._removed_at)] = self._removed_at
            self._removed_at = larger

    def rows_at(self, generation: int) -> int:
        """The number after the newest row of a generation that is still kept."""
        place = generation - self.manifest.base_generation
        return self._rows_after[place - 1] if place else self._base_rows

    def live(self, rows: Sequence[int]) -> list[int]:
        """Select the row numbers that were not removed."""
        return [row for row in rows if self._removed_at[row - self.first_row] == LIVE]

    def removed_at(self, rows: int) -> IntArray:
        """The generation that removed each of the first rows (up to row number `rows`)."""
        return self._removed_at[: rows - self.first_row]

    def frame(self, entry: Frame) -> Frame:
        """A frame with its body, read again from the log."""
        return next(self.bodies([entry]))

    def bodies(self, entries: Sequence[Frame]) -> Iterator[Frame]:
        """Frames with their bodies, read again from the log."""
        path = self._log_path
        size_of(path)
        with reading(path) as file:
            for entry in entries:
                file.seek(entry.offset)
                data = memoryview(file.read(entry.end - entry.offset))
                if (whole := frames.decode(data, path=path)) is None:
                    raise ShelfDamaged(f"{path} is damaged at byte {entry.offset}")
                yield whole

    def vectors(self, rows: int) -> FloatArray:
        """The unit embedding pairs of the first rows, memory-mapped, (rows - first_row, width)
        float32."""
        count = rows - self.first_row
        mapping = self._mapping
        if mapping is None or len(mapping) < count or not is_whole(mapping):
            if count == 0:
                return np.empty((0, self.width), dtype=np.float32)
            path = vectors_path(self.directory, self.manifest.epoch)
            self._mapping = mapping = mapped_vectors(path, (count, self.width))
        return mapping[:count]

    # ---- writing: the caller holds the writer lock

    def begin(self) -> None:
        """Before a change: read the newest state and cut off what a crash left behind it."""
        if self._poison:
            raise ShelfPoisoned(
                f"an earlier write through this handle failed ({self._poison}):"
                " open the shelf again"
            )
        check_entries(self.directory)
        self._take_stock()
        for _ in range(2):  # once for files that a copy shares, once for what a crash left
            if self._guard(self._is_settled):
                break
            with self._alone():
                self._take_stock()
                self._guard(self._settle)

    def _take_stock(self) -> None:
        self.refresh()
        with self.reading:
            self._reopened()
            self._begun = self.loads

    def _is_settled(self) -> bool:
        """Whether no file is shared, none is longer than it should be, and TIP is up to date."""
        now, tip = (self.manifest.epoch, self.generation), read_tip(self.directory)
        known = not self.heads or (tip and (tip.epoch, tip.generation) >= now)
        sizes = self.log_end, (self.rows - self.first_row) * self.width * 4
        files = zip(map(Path.stat, self._truth()), sizes, strict=True)
        whole = all(file.st_nlink < 2 and file.st_size <= size for file, size in files)
        return bool(self._swept == self.manifest.epoch and known and whole)

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        return alone(self._log_path, self._lock)

    def _truth(self) -> tuple[Path, Path]:
        return self._log_path, vectors_path(self.directory, self.manifest.epoch)

    def _settle(self) -> None:
        paths = (*self._truth(), self.directory / TIP)
        if any(map(disk.has_another_name, paths)):  # what a `cp -al` has stays as it is
            for path in paths:  # the log first: what it states is in the vectors then
                disk.unshare(path)
            self._mapping, self._proof = None, Proof.of(self._log_path, self._last())
            return
        if self._swept != self.manifest.epoch:
            sweep(self.directory, self.manifest.epoch)
            self._swept = self.manifest.epoch
        self._cut_and_renew()

    def _cut_and_renew(self) -> None:
        """Cut off what a crash left behind, and make sure that what others left is on the disk.

        A frame whose sync failed in another process can be read and yet be lost: the kernel takes
        its pages for written. So a last frame that TIP does not know to be acknowledged is
        written again, with its vectors.
        """
        epoch = self.manifest.epoch
        logged, stored = self._truth()
        disk.cut(logged, self.log_end)
        disk.cut(stored, (self.rows - self.first_row) * self.width * 4)
        tip = read_tip(self.directory) or Tip(epoch, -1, 0)
        if self.heads and (tip.epoch, tip.generation) < (epoch, self.generation):
            last = self.heads[-1]
            if rows := last.head.get("rows"):
                row = last.head["width"] * 4
                disk.write_again(stored, (last.head["first"] - self.first_row) * row, rows * row)
            disk.write_again(logged, last.offset, last.end - last.offset)
            write_tip(self.directory, Tip(epoch, self.generation, self.log_end))

    def set_manifest(self, **changes: object) -> None:
        """Replace fields of the manifest, durably."""
        with self._alone():
            self._guard(write_manifest, self.directory, self.manifest.replace(**changes))
        self.manifest, self._stamp = self.manifest.replace(**changes), stamp_of(self.directory)

    def commit(self, head: Head, body: Body, vectors: FloatArray | None = None) -> Frame:
        """Make one change durable: vectors, sync, frame, sync. Returns its frame.

        Any exception here leaves the handle poisoned; the change is then either wholly there or
        wholly absent when the shelf is opened again.
        """
        frame = self.append(head, body, vectors)
        self.take(frame)
        return frame

    def begin_epoch(self, write: Callable[[], Manifest]) -> None:
        """Have `write` make the next epoch durable up to its manifest, then drop the old one."""
        with self._alone():
            manifest = self._guard(write)
        self._begun += 1
        write_tip(self.directory, Tip(manifest.epoch, self.generation, manifest.sealed))
        self._guard(sweep, self.directory, manifest.epoch)

    def append(self, head: Head, body: Body, vectors: FloatArray | None = None) -> Frame:
        """The durable half of `commit`; other threads may read this ledger meanwhile."""
        with self._alone():
            return self._guard(self._write_change, {"time": time.time(), **head}, body, vectors)

    def take(self, frame: Frame) -> None:
        """The other half: count in a frame, unless a reading thread has met it already."""
        if self.generation < frame.generation:
            self._guard(self._advance, frame)
        self._proof = Proof.of(self._log_path, frame)
        write_tip(self.directory, Tip(self.manifest.epoch, frame.generation, frame.end))

    def _write_change(self, head: Head, body: Body, vectors: FloatArray | None) -> Frame:
        generation, offset = self.generation + 1, self.log_end
        replaced = self._proof and not self._proof.holds(self._log_path)
        if self._begun != self.loads or replaced or size_of(self._log_path) != offset:
            raise OSError("its files were replaced meanwhile, by a backup or a copy")
        if self._recorded != (identity := self.manifest.identity()):
            head |= {"shelf": identity}  # so that a lost manifest can be made again
        if vectors is not None and len(vectors):
            vectors = np.ascontiguousarray(vectors, dtype=np.float32)
            raw = vectors.view(np.uint8).reshape(-1).data
            head |= {"first": self.rows, "rows": len(vectors), "width": vectors.shape[1]}
            head["vectors"] = xxhash.xxh3_64(raw).hexdigest()
            place = (self.rows - self.first_row) * vectors.shape[1] * 4
            disk.write_synced(vectors_path(self.directory, self.manifest.epoch), raw, place)
        data = frames.encode(generation, head, body)
        disk.write_synced(self._log_path, data, offset)
        return Frame(generation, head, b"", offset, offset + len(data))

    def _guard(self, step: Callable[..., T], *arguments: Any) -> T:
        try:
            return step(*arguments)
        except OSError as error:
            self._poison = str(error)
            raise ShelfError(
                f"writing to {self.directory} failed ({error}): this change was not acknowledged,"
                " earlier ones are safe; free space or repair the disk, then open the shelf again"
            ) from error
        except BaseException as error:
            self._poison = f"interrupted by {type(error).__name__}"
            raise
