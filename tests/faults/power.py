"""Power loss: a run's system calls written down, and the states that a disk may be left in.

`ext4`: metadata operations survive in order, at least up to the last sync of anything; data that
was not synced may be lost. `posix`: whatever was not synced may be lost, each thing by itself; a
name counts as synced when its directory is.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from faults.seam import hooked
from faults.world import Change, Model, apply, plan, reopen, step

from kinshelf import Shelf
from kinshelf.db.errors import ShelfNotFound

CHANGES = 30


@dataclass
class Event:
    """One call: data of a file (write, cut), a name (make, rename, unlink, mkdir), sync, or ack."""

    kind: str
    path: str = ""
    to: str = ""
    data: bytes = b""
    offset: int = 0
    file: int = -1


@dataclass
class Journal:
    """Everything a run did to the disk, in order; `models[n]` is right after n acknowledgements."""

    root: Path
    events: list[Event] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    _files: dict[str, int] = field(default_factory=dict)
    _count: int = 0

    def file(self, path: str) -> int:
        """The number of the file that has this name now."""
        if path not in self._files:
            self._files[path] = self._count
            self._count += 1
            self.events.append(Event("make", path, file=self._files[path]))
        return self._files[path]

    def __call__(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if name in ("rename", "unlink"):
            self._names(name, [str(a) for a in arguments])
            return call(*arguments)
        result = call(*arguments)
        if name in ("open", "save"):
            self._opened(name, str(arguments[0]), arguments)
        elif name == "mkdir":
            self.events.append(Event("mkdir", str(arguments[0])))
        elif name != "rmdir":
            self._data(name, str(Path(f"/proc/self/fd/{arguments[0]}").readlink()), arguments)
        return result

    def _opened(self, name: str, path: str, arguments: tuple[Any, ...]) -> None:
        number = self.file(path)
        if name == "save":
            data = Path(path).read_bytes()
            self.events.append(Event("write", path, data=data, file=number))
        elif arguments[1] & os.O_TRUNC:
            self.events.append(Event("cut", path, file=number))

    def _names(self, name: str, paths: list[str]) -> None:
        old, new = paths[0], paths[-1]
        if name == "unlink":
            if self._files.pop(old, None) is not None:
                self.events.append(Event("unlink", old))
            return
        self.events.append(Event("rename", old, new))
        for path in [p for p in self._files if p == old or p.startswith(old + "/")]:
            self._files[new + path[len(old) :]] = self._files.pop(path)

    def _data(self, name: str, path: str, arguments: tuple[Any, ...]) -> None:
        if name == "pwrite":
            event = Event("write", path, data=bytes(arguments[1]), offset=arguments[2])
        elif name == "ftruncate":
            event = Event("cut", path, offset=arguments[1])
        elif Path(path).is_dir():
            self.events.append(Event("sync-names", path))
            return
        else:
            if path not in self._files:  # written by a library: all of it, before this sync
                self._opened("save", path, ())
            event = Event("sync", path)
        event.file = self.file(path)
        self.events.append(event)


def record(root: Path, seed: str) -> Journal:
    """A shelf that is made, changed and opened again, written down."""
    path, journal = root / "run.shelf", Journal(root)
    with hooked(journal):
        Shelf.create(path, encoder="supplied").close()
        journal.models = [Model()]
        journal.events.append(Event("ack"))
        shelf = Shelf.open(path)
        for number in range(CHANGES):
            change = plan(seed, number, journal.models[-1])
            change = {5: Change("train"), 11: Change("compact"), 17: Change("compact")}.get(
                number, change
            )
            apply(shelf, change)
            journal.models.append(step(journal.models[-1], change))
            journal.events.append(Event("ack"))
            if number % 7 == 6:
                shelf.close()
                shelf = Shelf.open(path)
        shelf.close()
    return journal


class Disk:
    """What a power loss after `count` events may leave behind."""

    def __init__(self, journal: Journal, count: int, rules: str, random: Random) -> None:
        self._events = journal.events[:count]
        self._root = journal.root
        self._random, self._rules = random, rules
        self._synced: dict[int, int] = {}
        self._named: dict[str, int] = {}
        barrier = 0
        for at, event in enumerate(self._events):
            if event.kind == "sync":
                self._synced[event.file] = barrier = at
            elif event.kind == "sync-names":
                self._named[event.path] = barrier = at
        self._ordered = random.randint(barrier, count)

    def _survives(self, at: int, event: Event) -> bool:
        if event.kind in ("write", "cut"):
            return at < self._synced.get(event.file, -1) or self._random.random() < 0.5
        if self._rules == "ext4":
            return at <= self._ordered
        return at < self._named.get(str(Path(event.to or event.path).parent), -1) or (
            self._random.random() < 0.5
        )

    def lay(self, target: Path) -> None:
        """Write that state down in a directory."""
        names: dict[str, int] = {}
        contents: dict[int, bytearray] = {}
        made: set[str] = set()
        for at, event in enumerate(self._events):
            if event.kind in ("ack", "sync", "sync-names") or not self._survives(at, event):
                continue
            if event.kind == "mkdir":
                made.add(event.path)
            elif event.kind in ("write", "cut"):
                self._put(contents.setdefault(event.file, bytearray()), at, event)
            else:
                _name(names, event)
        self._materialise(target, names, contents, made)

    def _put(self, content: bytearray, at: int, event: Event) -> None:
        if event.kind == "cut":
            del content[event.offset :]
            return
        data = event.data
        if at >= self._synced.get(event.file, -1):  # torn: a part of it only
            data = data[: self._random.randint(0, len(data))]
        content.extend(bytes(max(0, event.offset + len(data) - len(content))))
        content[event.offset : event.offset + len(data)] = data

    def _materialise(
        self, target: Path, names: dict[str, int], contents: dict[int, bytearray], made: set[str]
    ) -> None:
        target.mkdir()
        for path in made:
            (target / Path(path).relative_to(self._root)).mkdir(parents=True, exist_ok=True)
        for path, number in names.items():
            place = target / Path(path).relative_to(self._root)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(contents.get(number, b""))


def _name(names: dict[str, int], event: Event) -> None:
    if event.kind == "make":
        names[event.path] = event.file
    elif event.kind == "unlink":
        names.pop(event.path, None)
    else:
        for path in [p for p in names if p == event.path or p.startswith(event.path + "/")]:
            names[event.to + path[len(event.path) :]] = names.pop(path)


def run(directory: Path, seed: str, states: int) -> Counter[str]:
    """Check so many states; raises AssertionError, naming the state, at the first bad one."""
    journal = record(directory, seed)
    outcomes = Counter[str]()
    for number in range(states):
        random = Random(f"{seed}/{number}")
        rules = ("ext4", "posix")[number % 2]
        count = random.randint(1, len(journal.events))
        disk = Disk(journal, count, rules, random)
        target = directory / f"state-{number}"
        disk.lay(target)
        acknowledged = sum(e.kind == "ack" for e in journal.events[:count])
        try:
            outcomes[f"{rules}: {_check(target / 'run.shelf', journal.models, acknowledged)}"] += 1
        except Exception as error:
            message = f"state {number} ({rules}, after event {count}): {error}"
            raise AssertionError(message) from error
    return outcomes


def _check(path: Path, models: list[Model], acknowledged: int) -> str:
    if not acknowledged:
        try:
            reopen(path, models[:1])
        except ShelfNotFound:
            Shelf.create(path, encoder="supplied").close()
            return "no shelf, as none was acknowledged"
        return "empty shelf"
    allowed = models[acknowledged - 1 : acknowledged + 1]
    model = reopen(path, allowed).model
    change = Change("upsert", {"z9": 999})
    with Shelf.open(path) as shelf:  # recovery writes
        apply(shelf, change)
    reopen(path, [step(model, change)], verified=False)
    return "whole"
