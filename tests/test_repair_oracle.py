"""`verify --repair` keeps what the undamaged frames say, whichever byte is flipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from faults.oracle import FILES, check, make


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made") / "toys.shelf")


def some(size: int) -> list[int]:
    """The first and the last byte and some at random."""
    return sorted({0, size - 1, *np.random.default_rng(0).choice(size, 10, replace=False).tolist()})


@pytest.mark.parametrize("derived", [False, True], ids=["log alone", "with its catalogue"])
@pytest.mark.parametrize("file", FILES)
def test_a_flipped_byte_costs_what_its_frame_stated_and_nothing_else(
    made: Path, tmp_path: Path, file: str, derived: bool
) -> None:
    for place in some((made / file).stat().st_size):
        check(made, tmp_path / str(place), file, place, derived=derived)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("derived", [False, True], ids=["log alone", "with its catalogue"])
@pytest.mark.parametrize("file", FILES)
def test_so_does_every_byte(made: Path, tmp_path: Path, file: str, derived: bool) -> None:
    for place in range((made / file).stat().st_size):
        check(made, tmp_path / "toys", file, place, derived=derived)
        shutil.rmtree(tmp_path / "toys")
