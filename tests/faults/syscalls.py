"""Each system call of each kind of change is failed in turn, in each way."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faults.seam import MODES, Counting, Died, Failing, hooked
from faults.world import Change, Model, apply, findings, holds, new_shelf, reopen, step

from kinshelf import Shelf
from kinshelf.db.errors import KinshelfError, ShelfNotFound, ShelfPoisoned

CHANGES = {
    "insert": Change("upsert", {"q1": 900, "q2": 900}),
    "update": Change("upsert", {"p00": 901, "p01": 901, "q1": 901}),
    "remove": Change("remove", {"p00": 0}),
    "train": Change("train"),
    "compact": Change("compact"),
}
SCENARIOS = (*CHANGES, "create", "close", "recovery")
MANY = Change("upsert", {f"s{i}": i for i in range(40)})
NEXT = Change("upsert", {"z9": 999})


@dataclass
class Case:
    """One call to fail: its number in a scenario, its name, and the way."""

    scenario: str
    at: int
    call: str
    mode: str


class Bench:
    """A shelf to begin with, copied for each case."""

    def __init__(self, directory: Path) -> None:
        self.base, self.path = directory / "base.shelf", directory / "case.shelf"
        self.model = new_shelf(self.base, "syscalls", 12)
        with Shelf.open(self.base) as shelf:
            first = Change("upsert", {"p00": 800, "p01": 800})
            apply(shelf, first)
            self.model = step(self.model, first)
        self.torn = directory / "torn.shelf"
        shutil.copytree(self.base, self.torn)
        for pattern in ("log-*.wal", "vectors-*.f32"):
            with next(self.torn.glob(pattern)).open("ab") as file:
                file.write(b"KSL1" + bytes(100))

    def cases(self) -> Iterator[Case]:
        for scenario in SCENARIOS:
            count = Counting()
            shelf = self._lay(scenario)
            with hooked(count):
                self._act(scenario, shelf)
            for at, call in enumerate(count.names):
                for mode in MODES:
                    yield Case(scenario, at, call, mode)

    def _lay(self, scenario: str) -> Shelf | None:
        """A fresh copy of the shelf to begin with, open."""
        shutil.rmtree(self.path, ignore_errors=True)
        if scenario == "create":
            return None
        shutil.copytree(self.torn if scenario == "recovery" else self.base, self.path)
        shelf = Shelf.open(self.path)
        if scenario == "close":
            apply(shelf, MANY)
        return shelf

    def _act(self, scenario: str, shelf: Shelf | None) -> None:
        if shelf is None:
            Shelf.create(self.path, encoder="supplied").close()
        elif scenario == "close":
            shelf.close()
        else:
            apply(shelf, CHANGES.get(scenario, CHANGES["insert"]))

    def run(self, case: Case) -> str:
        """Fail one call. Returns what came of it; raises AssertionError for a broken promise."""
        shelf = self._lay(case.scenario)
        before, after = self._allowed(case.scenario)
        outcome = "acknowledged"
        try:
            with hooked(Failing(case.at, case.mode)):
                self._act(case.scenario, shelf)
        except Died:
            outcome = "died"
        except KinshelfError as error:
            outcome = "refused"
            assert str(self.path) in str(error), f"{case}: unclear: {error}"
        self._check(case, [after] if outcome == "acknowledged" else [before, after])
        return outcome

    def _allowed(self, scenario: str) -> tuple[Model, Model]:
        if scenario == "create":
            return Model(), Model()
        if scenario == "close":
            return step(self.model, MANY), step(self.model, MANY)
        return self.model, step(self.model, CHANGES.get(scenario, CHANGES["insert"]))

    def _check(self, case: Case, allowed: list[Model]) -> None:
        try:
            model = reopen(self.path, allowed).model
        except ShelfNotFound:
            assert case.scenario == "create", case
            Shelf.create(self.path, encoder="supplied").close()
            model = Model()
        with Shelf.open(self.path) as shelf:
            apply(shelf, NEXT)
            assert not holds(shelf, step(model, NEXT)), case
            assert not findings(shelf), case

    def poisoned(self) -> bool:
        """Whether a handle refuses to write on after a write failed half-way, but reads on."""
        shelf = self._lay("insert")
        assert shelf
        count = Counting()
        with hooked(count):
            apply(shelf, CHANGES["remove"])
        try:
            with hooked(Failing(count.names.index("fdatasync"), "eio")):
                apply(shelf, CHANGES["insert"])
        except KinshelfError:
            try:
                apply(shelf, CHANGES["insert"])
            except ShelfPoisoned:
                return not holds(shelf, step(self.model, CHANGES["remove"]))
        return False


def run(directory: Path, every: int = 1) -> Counter[str]:
    """Fail every `every`-th case; counts of outcomes, with the case in the error of a failure."""
    bench = Bench(directory)
    outcomes = Counter[str]()
    for case in list(bench.cases())[::every]:
        try:
            outcomes[bench.run(case)] += 1
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from error
    return outcomes
