"""A sector that cannot be read: the message names the file, what is derived is rebuilt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from faults import sectors
from faults.damage import answers, make

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db.files import read_around
from kinshelf.store.maintain.verify import verify_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path, "sectors")


@pytest.mark.parametrize(
    "name", ["MANIFEST", "log-*.wal", "vectors-*.f32", "probes/0001/probe.bin"]
)
def test_the_truth_is_named_and_set_aside_by_a_repair(path: Path, name: str) -> None:
    file = next(path.glob(name))
    with sectors.failing(file, 0):
        asked = ["show", "p00"] if "probes" not in name else ["verify"]
        result = CliRunner().invoke(main, [*asked, "--shelf", str(path)])
        assert result.exit_code in (1, 3), result.output
        assert file.name in result.output
        assert "Traceback" not in result.output
        mended = CliRunner().invoke(main, ["verify", "--repair", "--json", "--shelf", str(path)])
        report = json.loads(mended.stdout)
        assert report["quarantine"]
        assert list(Path(report["quarantine"]).rglob(file.name))
        assert [f for f in verify_path(path)[0] if not f.harmless] == []


@pytest.mark.parametrize("name", ["catalog.duckdb", "catalog.duckdb.json", "TIP"])
def test_what_is_derived_is_ignored_and_rebuilt(path: Path, name: str) -> None:
    with Shelf.open(path) as shelf:
        truth = answers(shelf)
    with sectors.failing(path / name, 0):
        with Shelf.open(path) as shelf:
            assert answers(shelf) == truth
        CliRunner().invoke(main, ["verify", "--repair", "--shelf", str(path)])
        assert not (path / name).exists() or read_around(path / name)[1] == []
        with Shelf.open(path) as shelf:
            assert answers(shelf) == truth


@pytest.mark.wide
def test_random_sectors_are_named_ignored_or_set_aside(tmp_path: Path) -> None:
    assert len(sectors.run(tmp_path, "ci", 10)) > 3
