"""The names of a shelf's files, and which of them a crash left behind."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from kinshelf.db.files import not_regular
from kinshelf.store.log import disk

QUARANTINE = "quarantine"
_OF_EPOCH = re.compile(r"(?:vectors|log|index)-(\d+)\.(?:f32|wal|faiss|faiss\.json)")
_TEMPORARY = re.compile(r"\.(?:MANIFEST|TIP|(?:catalog|index|vectors|log)[-.].*)\.tmp.*")
_PROBE = re.compile(r"\.\d+\.tmp")
_FILES = re.compile(r"MANIFEST|LOCK|TIP|(?:catalog|log|vectors|index)[-.].*|\..*\.tmp.*")
_FOLDERS = {"probes": 2, "reembed": 2, "images": 1, "pictures": 1, "quarantine": 0}
"""How many floors of each are ours alone; single pictures are looked at when they are opened."""


@functools.lru_cache(maxsize=64)  # every query asks for it, and joining takes longer than stat
def vectors_path(directory: Path, epoch: int) -> Path:
    """The file of unit embedding pairs, `[image ; text]` float32 rows."""
    return directory / f"vectors-{epoch}.f32"


def log_path(directory: Path, epoch: int) -> Path:
    """The log of an epoch."""
    return directory / f"log-{epoch}.wal"


def index_path(directory: Path, epoch: int) -> Path:
    """The index snapshot of an epoch."""
    return directory / f"index-{epoch}.faiss"


def epochs(directory: Path) -> list[int]:
    """The epochs of which there is a log, lowest first."""
    found = {_epoch_of(path) for path in directory.iterdir() if path.suffix == ".wal"}
    return sorted(epoch for epoch in found if epoch is not None)


def _epoch_of(path: Path) -> int | None:
    match = _OF_EPOCH.fullmatch(path.name)
    return int(match[1]) if match else None


def leftovers(directory: Path, epoch: int) -> Iterator[Path]:
    """Files that an interrupted write or compaction left behind, given the current epoch."""
    for path in sorted(directory.iterdir()):
        other = _epoch_of(path)
        if (other is not None and other != epoch) or _TEMPORARY.fullmatch(path.name):
            yield path
    if (directory / "probes").is_dir():
        for path in sorted((directory / "probes").iterdir()):
            if _PROBE.fullmatch(path.name):
                yield path


def sweep(directory: Path, epoch: int) -> list[Path]:
    """Remove the leftovers; the caller holds the writer lock. Returns what they were."""
    found = list(leftovers(directory, epoch))
    for path in found:
        if path.is_dir():
            disk.remove_tree(path)
        else:
            disk.unlink(path)
    return found


def check_entries(directory: Path) -> None:
    """Raises ShelfError for a link, pipe or device among the shelf's files and folders."""
    for entry in _entries(directory):
        if entry.name in _FOLDERS:
            _check_folder(entry, _FOLDERS[entry.name])
        elif _FILES.fullmatch(entry.name) and not entry.is_file(follow_symlinks=False):
            raise not_regular(Path(entry.path))


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _check_folder(folder: os.DirEntry[str], floors: int) -> None:
    if not folder.is_dir(follow_symlinks=False):
        raise not_regular(Path(folder.path))
    for entry in _entries(Path(folder.path)) if floors else ():
        if entry.is_dir(follow_symlinks=False):
            _check_folder(entry, floors - 1)
        elif not entry.is_file(follow_symlinks=False):
            raise not_regular(Path(entry.path))
