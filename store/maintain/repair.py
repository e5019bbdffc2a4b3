"""`verify --repair`: what is derived is rebuilt, what is not is set aside, and the rest goes on.

Damaged truth is written again as another epoch without what is lost, the manifest flipped as in a
compaction. What is damaged lies in `quarantine/TIME/` before that, so nothing is deleted that
somebody might still read; lost generations keep their numbers, as changes without content.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kinshelf.db.catalog.records import Counts, Head, ProbeRecord
from kinshelf.db.catalog.statement import side_file
from kinshelf.db.errors import ShelfError
from kinshelf.store.log import catalog_cache, disk
from kinshelf.store.log.frames import Frame
from kinshelf.store.log.layout import QUARANTINE, epochs, index_path, log_path, sweep, vectors_path
from kinshelf.store.log.ledger import Ledger
from kinshelf.store.log.lock import WriterLock
from kinshelf.store.log.manifest import NAME as MANIFEST
from kinshelf.store.log.manifest import read_manifest, write_manifest
from kinshelf.store.log.tip import NAME as TIP
from kinshelf.store.log.tip import read_tip
from kinshelf.store.maintain import verify
from kinshelf.store.maintain.rewrite import Left, Rewriting
from kinshelf.store.maintain.survey import Survey
from kinshelf.store.probes import damaged_files
from kinshelf.store.results import Finding, ProbeEntry
from kinshelf.store.search.lifecycle import EpochIndex


@dataclass(slots=True)
class RepairReport:
    """The findings of a repair, its actions, and its losses.

    `lost_products` names the products that are known to be gone, `lost_generations` the first
    and the last change that could not be read; `quarantine` is where the damaged files lie.
    """

    findings: list[Finding] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    lost_products: list[str] = field(default_factory=list)
    lost_generations: tuple[int, int] | None = None
    lost_probes: list[int] = field(default_factory=list)
    quarantine: str | None = None
    generation: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def repair(path: Path, *, wait: float = 0.0) -> RepairReport:
    """Mend the shelf at `path` as far as it can be mended; then `verify` finds no damage.

    Raises ShelfNotFound, ShelfLocked, UnsupportedFormat, or ShelfError if the disk refuses.
    """
    findings, _ = verify.verify_path(path)
    with WriterLock(path, wait=wait) as lock:
        try:
            return _Repair(path, findings, lock).run()
        except OSError as error:
            raise ShelfError(
                f"repairing {path} failed ({error}): run it again when that is mended; what it"
                f" set aside is in {path / QUARANTINE}"
            ) from error


class _Repair:
    """One repair; the caller holds the writer lock."""

    def __init__(self, path: Path, findings: list[Finding], lock: WriterLock) -> None:
        self._path, self._lock = path, lock
        self._report = RepairReport(findings)
        self._quarantine: Path | None = None

    def run(self) -> RepairReport:
        """All of it, the truth first."""
        survey = Survey(self._path)
        self._lock.check()
        probes = self._damaged_probes(survey)
        if survey.damaged_files == [self._path / MANIFEST] and not probes:
            self._renew_manifest(survey)
        elif survey.damaged or probes:
            self._rewrite(survey, probes)
        for left in sweep(self._path, read_manifest(self._path).epoch):
            self._say(f"removed {left.name}, left by an interrupted write")
        for file, _ in list(verify.damaged_images(self._path)):
            self._set_aside(file)
        self._rebuild()
        if read_tip(self._path) is None:
            disk.unlink(self._path / TIP)
        return self._report

    # ---- setting aside

    def _place(self, file: Path) -> Path:
        """Where a file goes, its folder made."""
        if self._quarantine is None:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            taken = len(list((self._path / QUARANTINE).glob(f"{stamp}*")))
            self._quarantine = self._path / QUARANTINE / (f"{stamp}-{taken}" if taken else stamp)
            self._report.quarantine = str(self._quarantine)
        place = self._quarantine / file.relative_to(self._path)
        disk.make_directory(place.parent)
        return place

    def _set_aside(self, file: Path) -> None:
        """Move a file or folder out of the shelf."""
        place = self._place(file)
        disk.rename(file, place)
        disk.sync_directory(file.parent)
        self._say(f"moved {file.relative_to(self._path)} to {place.relative_to(self._path)}")

    def _keep_copy(self, file: Path) -> None:
        """Have a file in quarantine too, before the shelf stops needing it."""
        if not file.is_file():
            return
        place = self._place(file)
        try:
            os.link(file, place)
        except OSError:  # a file system without links
            shutil.copy2(file, place)
        disk.sync_directory(place.parent)
        self._say(f"set {file.name} aside as {place.relative_to(self._path)}")

    def _say(self, line: str) -> None:
        self._report.done.append(line)

    # ---- the truth

    def _damaged_probes(self, survey: Survey) -> frozenset[int]:
        bad = [probe for probe in _probes(survey) if damaged_files(probe)]
        for probe in bad:
            if probe.path.is_dir():
                self._set_aside(probe.path)
        self._report.lost_probes = sorted(probe.version for probe in bad)
        return frozenset(self._report.lost_probes)

    def _renew_manifest(self, survey: Survey) -> None:
        self._keep_copy(self._path / MANIFEST)
        write_manifest(self._path, survey.manifest)
        self._say(f"wrote {MANIFEST} anew as the log tells it: encoder {survey.manifest.encoder!r}")

    def _rewrite(self, survey: Survey, probes: frozenset[int]) -> None:
        old = survey.manifest.epoch
        names = (self._path / MANIFEST, log_path(self._path, old), vectors_path(self._path, old))
        for file in names if survey.damaged else ():
            self._keep_copy(file)
        if survey.missing:
            self._report.lost_generations = survey.missing[0], survey.missing[-1]
        self._report.lost_products = sorted(set(survey.lost_ids))
        source = survey.source()
        frames = [*source.frames, _told_of_repair(survey)]
        left = Left(survey.lost_rows, probes)
        rewriting = Rewriting(replace(source, frames=frames), survey.manifest.base_generation, left)
        epoch = 1 + max(survey.manifest.epoch, *epochs(self._path), 0)
        disk.unlink(self._path / TIP)
        self._lock.check()
        rewriting.write(epoch)
        sweep(self._path, epoch)
        self._say(
            f"wrote log and vectors again without what is lost: {rewriting.count} rows are kept"
        )

    # ---- what is derived

    def _rebuild(self) -> None:
        """Drop snapshots that do not match their checksum, and write the catalogue's anew."""
        ledger = Ledger(self._path)
        if list(verify.index_file(self._path, ledger)):
            index = index_path(self._path, ledger.manifest.epoch)
            self._drop(index, "searches are exact without it")
        catalogue = self._path / catalog_cache.CATALOG
        if list(verify.catalogue_file(self._path)) or self._report.done or _disagrees(self._report):
            self._drop(catalogue, "rebuilt from the log")
            catalog = catalog_cache.base_catalog(ledger)
            catalog_cache.catch_up(catalog, ledger)
            catalog_cache.save_catalog(self._path, ledger, catalog)
            catalog.close()
        self._report.generation = ledger.generation
        if EpochIndex(self._path, ledger).update(ledger.vectors(ledger.rows), nullcontext):
            self._say("built the index anew")

    def _drop(self, snapshot: Path, why: str) -> None:
        for file in (side_file(snapshot), snapshot):
            disk.unlink(file)
        self._say(f"removed {snapshot.name}, which is derived: {why}")


def _probes(survey: Survey) -> list[ProbeEntry]:
    """The probes that the readable log names."""
    found: list[ProbeRecord] = []
    for frame in survey.frames:
        if frame.is_base:
            found += survey.read(frame).get("probes", [])
        elif probe := frame.head.get("probe"):
            found.append(probe)
    folder = survey.directory / "probes"
    return [
        ProbeEntry(p["version"], folder / f"{p['version']:04d}", 0, p["trained_on"], {}, p["files"])
        for p in found
    ]


def _told_of_repair(survey: Survey) -> Frame:
    counts: Counts = {"removed": len(set(survey.lost_ids))}
    head: Head = {
        "time": time.time(), "kind": "repair", "command": "verify --repair", "counts": counts,
    }  # fmt: skip
    return Frame(survey.generation + 1, head, b"", -1)


def _disagrees(report: RepairReport) -> bool:
    return any(f.file == catalog_cache.CATALOG and not f.harmless for f in report.findings)
