"""Random sequences of changes and questions against a plain dictionary (hypothesis, stateful)."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from faults.world import Change, Model, apply, findings, holds, pairs, step
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kinshelf import Shelf
from kinshelf.db.errors import GenerationNotFound, ProductNotFound

NAMES = st.sampled_from([f"n{i}" for i in range(12)])


class ShelfMachine(RuleBasedStateMachine):
    """A shelf and what it must hold; a second handle reads what the first writes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "machine.shelf"
        Shelf.create(self.path, encoder="supplied").close()
        self.shelf, self.reader = Shelf.open(self.path), Shelf.open(self.path)
        self.model, self.version = Model(), 0
        self.past: dict[int, Model] = {}

    def teardown(self) -> None:
        self.shelf.close()
        self.reader.close()
        shutil.rmtree(self.folder)

    def _change(self, change: Change) -> None:
        apply(self.shelf, change)
        self.model = step(self.model, change)
        self.past[self.shelf.generation] = self.model

    @rule(names=st.sets(NAMES, min_size=1, max_size=6))
    def upsert(self, names: set[str]) -> None:
        self.version += 1
        self._change(Change("upsert", dict.fromkeys(sorted(names), self.version)))

    @precondition(lambda self: self.model.versions)
    @rule()
    def upsert_unchanged(self) -> None:
        before = self.shelf.generation
        apply(self.shelf, Change("upsert", dict(self.model.versions)))
        assert self.shelf.generation == before

    @rule(names=st.sets(NAMES, min_size=1, max_size=3))
    def remove(self, names: set[str]) -> None:
        if names <= set(self.model.versions):
            self._change(Change("remove", dict.fromkeys(sorted(names), 0)))
            return
        before = self.shelf.generation
        with pytest.raises(ProductNotFound):
            self.shelf.remove(sorted(names))
        assert self.shelf.generation == before

    @rule(keep=st.integers(1, 4))
    def compact(self, keep: int) -> None:
        self.shelf.compact(keep)
        oldest = self.shelf.generation - keep + 1
        self.past = {g: model for g, model in self.past.items() if g >= oldest}

    @rule()
    def reopen(self) -> None:
        self.shelf.close()
        self.shelf = Shelf.open(self.path)

    @precondition(lambda self: self.past)
    @rule(pick=st.integers(0, 1 << 16))
    def ask_the_past(self, pick: int) -> None:
        generation = sorted(self.past)[pick % len(self.past)]
        found = self.reader.snapshot(at=generation).select()
        versions = {p.product.id: int(p.product.title.rpartition(" ")[2]) for p in found}
        assert versions == self.past[generation].versions
        with pytest.raises(GenerationNotFound):
            self.reader.snapshot(at=self.shelf.generation + 1)

    @precondition(lambda self: self.model.versions)
    @rule(name=NAMES, k=st.integers(1, 20))
    def search_red(self, name: str, k: int) -> None:
        red = sorted(n for n, v in self.model.versions.items() if v % 2 == 0)
        query = pairs(name, 0)[None]
        found = self.reader.snapshot().kneighbors(query, k, where="colour = 'red'")
        rows = [int(r) for r in found.rows[0] if r >= 0]
        entries = self.reader.snapshot().view.by_rows(rows)
        truth = {n: float(query[0] @ pairs(n, self.model.versions[n])) / 2 for n in red}
        assert len(rows) == min(k, len(red))
        best = sorted(truth.values(), reverse=True)[:k]
        assert np.allclose([truth[entries[r].product.id] for r in rows], best, atol=1e-5)

    @rule()
    def verify(self) -> None:
        assert not findings(self.shelf)

    @invariant()
    def both_handles_hold_the_model(self) -> None:
        assert not holds(self.shelf, self.model)
        assert not holds(self.reader, self.model)
