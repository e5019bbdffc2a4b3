"""Probes on disk: one directory a version, immutable once its frame is in the log.

What a probe *is* the probe layer knows; here its files are made durable and named.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.db.catalog.statement import fault_of, file_hash
from kinshelf.db.errors import ProbeNotFound, ShelfDamaged, ShelfError
from kinshelf.store.log import disk
from kinshelf.store.results import ProbeEntry

if TYPE_CHECKING:
    from kinshelf.db.catalog.records import ProbeRecord
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot


FACTS_FILE = "probe.json"
"""What a probe states of itself; `generation` in it is the newest that it could know."""


def save_probe(
    shelf: AnyShelf,
    write: Callable[[Path], None],
    *,
    trained_on: int,
    classes: int,
    metrics: Any,
    command: str = "train",
) -> int:
    """Make the files that `write` puts into a directory the shelf's newest probe.

    The directory gets its name only when its files are synced, and counts only once its frame is
    in the log, where `command` tells what made it. Returns its version.
    """
    with shelf.writing():
        known = shelf.snapshot().view.probes()
        version = 1 + max((p["version"] for p in known), default=0)
        try:
            hashes = _write_files(probe_directory(shelf, version), write)
        except OSError as error:
            raise ShelfError(
                f"writing probe {version} to {shelf.name} failed ({error}): the shelf is as it was"
                " before; free space or repair the disk, then run this again"
            ) from error
        probe: ProbeRecord = {
            "version": version, "trained_on": trained_on, "classes": classes, "files": hashes,
            "metrics": metrics,
        }  # fmt: skip
        shelf.commit({"kind": command, "command": command, "probe": probe}, {})
    return version


def _write_files(final: Path, write: Callable[[Path], None]) -> dict[str, str]:
    disk.write_directory(final, write)
    return {file.name: file_hash(file) for file in sorted(final.iterdir())}


def probe_directory(shelf: AnyShelf, version: int) -> Path:
    """The folder of a probe's files on this machine."""
    return shelf.path / "probes" / f"{version:04d}"


def list_probes(shelf: AnyShelf, snapshot: AnySnapshot) -> list[ProbeEntry]:
    """The probes that a generation had, oldest first."""
    return [
        ProbeEntry(
            p["version"], probe_directory(shelf, p["version"]), p["generation"], p["trained_on"],
            p["metrics"], p["files"],
        )
        for p in snapshot.view.probes()
    ]  # fmt: skip


def find_probe(shelf: AnyShelf, snapshot: AnySnapshot, version: int | None = None) -> ProbeEntry:
    """The newest probe, or the one of a version, its files checked against the log.

    Raises ProbeNotFound or ShelfDamaged.
    """
    known = list_probes(shelf, snapshot)
    wanted = known[-1:] if version is None else [p for p in known if p.version == version]
    if not wanted:
        have = ", ".join(str(p.version) for p in known)
        raise ProbeNotFound(
            f"{shelf.name} has no probe{'' if version is None else f' {version}'}:"
            + (f" it has {have}" if have else " train one with `kinshelf train`")
        )
    shelf.bring_probe(wanted[0])
    damaged = damaged_files(wanted[0])
    if damaged:
        raise ShelfDamaged(
            f"{wanted[0].path} is damaged ({', '.join(damaged)}): use another with --probe, or"
            " train again with `kinshelf train`"
        )
    return wanted[0]


def damaged_files(probe: ProbeEntry) -> list[str]:
    """Names of its files that are missing or not what was written."""
    return [
        name
        for name, expected in probe.files.items()
        if not (probe.path / name).is_file() or fault_of(probe.path / name, expected)
    ]
