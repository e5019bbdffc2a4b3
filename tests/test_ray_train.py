"""Training from blocks: rows read once and shuffled by blocks, on one process or shared on Ray."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import unit
from ray_helpers import BIN, QUIET, need_ray

from kinshelf import Shelf
from kinshelf.cluster.blocks import BLOCK, LabelledBlock, SpooledData, open_parts, shelf_blocks
from kinshelf.cluster.parts import PartCounts, part_bytes, write_once
from kinshelf.db.errors import EmptySource, EncoderMismatch, UnreadableSource
from kinshelf.db.product import Product
from kinshelf.db.sources.parts import NAME, PartEntry, PartsManifest
from kinshelf.probe.fit.batches import MIXED, RUN, block_order
from kinshelf.probe.fit.data import ArrayData
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.training import train_probe
from kinshelf.probe.predict.freshness import probe_facts
from kinshelf.store.ingest.candidate import Candidate
from kinshelf.store.search import fusion

HALF = 16


def synthetic(count: int, classes: int = 5) -> tuple[np.ndarray, list[str]]:
    """Unit embedding pairs (n, 2 * HALF) around a centre a class, sorted by class, and the
    classes."""
    rng = np.random.default_rng(0)
    codes = np.sort(rng.integers(0, classes, count))
    centres = rng.standard_normal((classes, 2, HALF))
    rows = centres[codes] + 0.8 * rng.standard_normal((count, 2, HALF))
    pairs = unit(rows.reshape(-1, HALF)).reshape(count, 2 * HALF)
    return pairs, [f"class {code}" for code in codes]


def blocks(pairs: np.ndarray, names: list[str | None]) -> Iterator[LabelledBlock]:
    for start in range(0, len(pairs), 100):
        part = slice(start, start + 100)
        splits = ["val" if i % 10 == 0 else None for i in range(start, start + len(names[part]))]
        yield LabelledBlock(pairs[part], names[part], splits)


def write_parts(folder: Path, pairs: np.ndarray, names: list[str], size: int = 1000) -> Path:
    folder.mkdir()
    entries = []
    for start in range(0, len(pairs), size):
        rows = range(start, min(start + size, len(pairs)))
        encoded = [
            Candidate(Product(f"p{i}", category=names[i]), i, "synthetic",
                      image=pairs[i, :HALF], text=pairs[i, HALF:] if i % 7 else None)
            for i in rows
        ]  # fmt: skip
        name = f"part-{start:07d}.parquet"
        counts = PartCounts(name, len(rows), len(rows), 0)
        write_once(folder / name, part_bytes(encoded, counts, "clip-made", []))
        entries.append(PartEntry(name, len(rows), (folder / name).stat().st_size))
    manifest = PartsManifest(
        "synthetic", "made", None, "clip-made", HALF, "float32", size, finished=True,
        rows=len(pairs), products=len(pairs), parts=tuple(entries),
    )  # fmt: skip
    (folder / NAME).write_bytes(manifest.dump())
    return folder


def test_rows_read_from_blocks_are_those_that_were_in_them() -> None:
    pairs, classes = synthetic(750)
    names: list[str | None] = [None if i % 11 == 0 else name for i, name in enumerate(classes)]
    kept = [i for i, name in enumerate(names) if name is not None]
    with SpooledData(blocks(pairs, names), "made") as data:
        rows, found = data.labelled()
        assert found.tolist() == [names[i] for i in kept]
        asked = np.random.default_rng(1).integers(0, len(rows), 400)
        assert (data.fused(asked) == fusion.fused(pairs[kept])[asked]).all()
        held, _ = data.labelled("val")
        assert [kept[row] for row in held] == [i for i in kept if i % 10 == 0]


def test_a_probe_from_blocks_is_the_probe_from_memory() -> None:
    pairs, names = synthetic(1500)
    splits = ["val" if i % 10 == 0 else None for i in range(1500)]
    settings = ProbeSettings(epochs=4)
    whole = train_probe(ArrayData(fusion.fused(pairs), names, splits), settings).probe
    with SpooledData(blocks(pairs, list(names)), "made") as data:
        streamed = train_probe(data, settings).probe
    for name, weight in whole.weights.items():
        assert (weight == streamed.weights[name]).all(), name


def test_blocks_without_a_category_train_nothing() -> None:
    pairs, names = synthetic(20)
    with pytest.raises(EmptySource, match="no product has a category"):
        SpooledData(blocks(pairs, [None] * len(names)), "made")


def test_block_order_takes_every_row_once_from_a_few_runs_at_a_time() -> None:
    n = 3 * MIXED * RUN + 12_345
    order = block_order(n, np.random.default_rng(0))
    assert (np.sort(order) == np.arange(n)).all()
    runs = [np.unique(order[i : i + MIXED * RUN] // RUN) for i in range(0, n, MIXED * RUN)]
    assert max(map(len, runs)) <= 2 * MIXED  # one run is short, which moves those after it
    assert sorted(map(len, runs))[0] < MIXED
    spread = order[:64] // RUN
    assert len(np.unique(spread)) > 20, "a batch mixes many runs"
    assert (order != block_order(n, np.random.default_rng(1))).any()


def test_rows_sorted_by_category_train_as_well_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, names = synthetic(20_000, classes=20)
    data = ArrayData(fusion.fused(pairs), names)
    settings = ProbeSettings(epochs=3, batch_size=256)
    usual = train_probe(data, settings).probe.metrics["val_accuracy"]
    for name, value in (("WHOLE", 100), ("RUN", 64), ("MIXED", 16)):
        monkeypatch.setattr(f"kinshelf.probe.fit.batches.{name}", value)
    by_blocks = train_probe(data, settings).probe.metrics["val_accuracy"]
    assert float(by_blocks) == pytest.approx(float(usual), abs=0.01)


def test_parts_and_a_shelf_of_them_give_the_same_rows(tmp_path: Path) -> None:
    pairs, names = synthetic(2500)
    folder = write_parts(tmp_path / "parts", pairs, names)
    with (
        Shelf.create(tmp_path / "a.shelf", encoder="made") as shelf,
        open_parts(folder, "clip-made") as data,
    ):
        shelf.add(folder)
        now = shelf.snapshot()
        assert BLOCK > 2500
        with SpooledData(shelf_blocks(now), now.fingerprint) as same:
            assert data.labelled()[1].tolist() == same.labelled()[1].tolist() == names
            every = np.arange(2500)
            assert (data.fused(every) == same.fused(every)).all()
            assert (data.fused(every) == now.fused(now.labelled()[0])).all()
        assert not data.fused(np.array([7]))[0, HALF:].any(), "its text was missing"


def test_parts_of_another_encoder_are_refused(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "parts", *synthetic(50))
    with pytest.raises(EncoderMismatch, match="clip-other"):
        open_parts(folder, "clip-other")
    with pytest.raises(UnreadableSource, match="is not a folder that"):
        open_parts(tmp_path)


def _train(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "kinshelf"), "train", "--json", *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=280,
        env=os.environ | QUIET | {"KINSHELF_THREADS": "2"},
    )  # fmt: skip


def test_the_command_trains_from_a_folder_and_states_what_is_wrong_with_it(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "parts", *synthetic(600))
    few = write_parts(tmp_path / "few", *synthetic(60))
    with Shelf.create(tmp_path / "a.shelf", encoder="made") as shelf:
        shelf.add(few)
    done = _train("--shelf", tmp_path / "a.shelf", "--from", folder, "--epochs", 3)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trained_rows"] == 600
    with Shelf.open(tmp_path / "a.shelf") as shelf:  # what is there already did not come since
        assert probe_facts(shelf)["since_training"]["added"] == 0
    wrong = _train("--shelf", tmp_path / "a.shelf", "--from", tmp_path / "a.shelf")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (3, 1)


@pytest.mark.slow
def test_workers_of_ray_train_one_probe_as_good_as_one_process(tmp_path: Path) -> None:
    need_ray()
    pairs, names = synthetic(12_000, classes=20)
    folder = write_parts(tmp_path / "parts", pairs, names, size=500)
    with Shelf.create(tmp_path / "a.shelf", encoder="made") as shelf:
        shelf.add(folder)
    settings = ("--shelf", tmp_path / "a.shelf", "--epochs", 6, "--batch-size", 256)
    alone = _train(*settings)
    shared = _train(*settings, "--from", folder, "--ray", "local", "--workers", 2)
    from_shelf = _train(*settings, "--ray", "local", "--workers", 2)
    for done in (alone, shared, from_shelf):
        assert done.returncode == 0, done.stderr
    usual = json.loads(alone.stdout)["metrics"]["val_accuracy"]
    for done in (shared, from_shelf):
        report = json.loads(done.stdout)
        assert report["metrics"]["val_accuracy"] == pytest.approx(usual, abs=0.02)
        assert report["metrics"]["workers"] == 2
        assert report["trained_rows"] + report["metrics"]["held_out_rows"] == 12_000
    leftovers = [path.name for path in tmp_path.iterdir() if path.name.startswith(".probe-")]
    assert leftovers == []


def test_too_few_rows_are_not_shared_among_workers(tmp_path: Path) -> None:
    need_ray()
    folder = write_parts(tmp_path / "parts", *synthetic(300))
    with Shelf.create(tmp_path / "a.shelf", encoder="made") as shelf:
        shelf.add(folder)
    done = _train("--shelf", tmp_path / "a.shelf", "--ray", "local")
    assert done.returncode == 3
    assert "too few for 2 workers" in done.stderr
