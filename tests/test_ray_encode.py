"""Encoding into a folder: the same to the bit with and without Ray, resumed, and taken by `add`."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import write_csv
from engines import free_port
from ray_helpers import (
    QUIET,
    encode,
    encode_command,
    need_ray,
    parts,
    products_of,
    sample_rows,
    wait_for,
)

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.cluster.encode import EncodeOptions, encode_source
from kinshelf.cluster.part import EncoderSpec
from kinshelf.cluster.parts import write_once
from kinshelf.cluster.ray_encode import TASKS, TRIES, RayEncoder
from kinshelf.cluster.tasks import read_tasks
from kinshelf.db.errors import (
    ClusterError,
    EncoderMismatch,
    InputError,
    SourceNotFound,
    UnfinishedParts,
    UnreadableSource,
)
from kinshelf.db.sources.parts import PartsManifest
from kinshelf.db.sources.readers import ReadOptions
from kinshelf.samples import catalogue_dir, tiny_clip_dir
from kinshelf.store.encode.encoder import load_encoder

TINY = str(tiny_clip_dir())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 sample products; one has no content, one id comes twice, one picture is missing."""
    rows = sample_rows(120)
    rows[30] |= {"title": "", "description": "", "image": ""}
    rows[70]["id"] = rows[2]["id"]
    rows[71]["image"] = "nowhere.jpg"
    return write_csv(tmp_path_factory.mktemp("source") / "products.csv", rows)


def options(**more: Any) -> EncodeOptions:
    return EncodeOptions(**{"encoder": TINY, "part_rows": 25, **more})


@pytest.fixture(scope="module")
def plain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "encoded"
    encode_source(str(source), folder, options())
    return folder


def test_the_folder_holds_what_the_encoder_gives_for_each_product(
    source: Path, plain: Path
) -> None:
    encoder = load_encoder(TINY, precision=PartsManifest.read(plain).precision)
    row = sample_rows(120)[5]
    text = " || ".join(part for part in (row["title"], row["description"]) if part)
    wanted = encoder.encode_texts([text])[0]
    found = np.frombuffer(products_of(plain)[row["id"]][1], np.float32)
    assert found @ wanted == pytest.approx(1, abs=1e-5)
    assert sum(pq.read_metadata(path).num_rows for path in parts(plain)) == 118


def test_a_row_that_cannot_be_used_stands_among_the_rejects_with_its_reason(plain: Path) -> None:
    entries = [json.loads(line) for line in (plain / "rejects.jsonl").read_text().splitlines()]
    found = {entry["position"]: (entry["reason"], entry["kept"]) for entry in entries}
    assert found == {
        30: ("no-content", False),
        70: ("duplicate-id", False),
        71: ("image-missing-file", True),
    }
    manifest = PartsManifest.read(plain)
    assert (manifest.rows, manifest.products, manifest.rejected) == (120, 118, 2)
    assert (manifest.image_failed, manifest.finished) == (1, True)


@pytest.mark.timeout(240)
def test_ray_makes_the_same_files_though_a_worker_is_killed_in_the_middle(
    source: Path, plain: Path, tmp_path: Path
) -> None:
    need_ray()
    folder = tmp_path / "ray"
    command = encode_command(source, folder, "--part-rows", 25, "--ray", "local", "--quiet")
    environment = os.environ | QUIET | {"KINSHELF_THREADS": "2"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as driver:
        wait_for(lambda: parts(folder), 120, driver)
        for victim in _actors(driver.pid)[:1]:
            os.kill(victim, signal.SIGKILL)
        out, err = driver.communicate(timeout=200)
    assert driver.returncode == 1, err  # two rows were rejected
    assert json.loads(out)["products"] == 118
    assert _bytes(folder) == _bytes(plain)


def _actors(driver: int) -> list[int]:
    """Processes below the driver that run the actor, as Ray titles them."""
    found = subprocess.check_output(["ps", "-eo", "pid=,ppid=,args="], text=True)
    rows = [line.split(None, 2) for line in found.splitlines()]
    below = {driver}
    for _ in range(4):
        below |= {int(pid) for pid, parent, _ in rows if int(parent) in below}
    return [int(pid) for pid, _, args in rows if int(pid) in below and "MapWorker" in args]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_encoding_goes_on_where_it_stopped(
    source: Path, plain: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "encoded"
    command = encode_command(source, folder, "--part-rows", 25)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | QUIET
    ) as driver:
        wait_for(lambda: parts(folder), 60, driver)
        driver.kill()
    before = {path.name: path.stat().st_mtime_ns for path in parts(folder)}
    with pytest.raises(UnfinishedParts, match="run the same"):
        _add(folder, tmp_path)
    again = encode(source, folder, "--part-rows", 25)
    assert again.returncode == 1
    assert json.loads(again.stdout)["reused"] == len(before)
    assert all((folder / name).stat().st_mtime_ns == at for name, at in before.items())
    assert _bytes(folder) == _bytes(plain)


def _add(folder: Path, place: Path, **made: Any) -> Any:
    with Shelf.create(place / f"{len(list(place.iterdir()))}.shelf", **made) as shelf:
        return shelf.add(folder)


def test_a_changed_source_leaves_no_part_of_its_old_rows(source: Path, tmp_path: Path) -> None:
    folder, changed = tmp_path / "encoded", tmp_path / "products.csv"
    changed.write_bytes(source.read_bytes())
    encode_source(str(changed), folder, options())
    before = {path.name for path in parts(folder)}
    changed.write_text(source.read_text().replace("KS-0001-0,", "KS-NEW,"))
    report = encode_source(str(changed), folder, options())
    now = {path.name for path in parts(folder)}
    assert len(now & before) == report.reused == report.parts - 1
    assert "KS-NEW" in products_of(folder)
    assert "KS-0001-0" not in products_of(folder)


def test_add_takes_the_folder_bit_for_bit_and_encodes_nothing(plain: Path, tmp_path: Path) -> None:
    with Shelf.create(tmp_path / "a.shelf", encoder=TINY) as shelf:
        report = shelf.add(plain)
        assert (report.inserted, report.rejected, report.encoded_texts) == (118, 0, 0)
        again = shelf.add(plain)
        assert (again.inserted, again.unchanged) == (0, 118)
        assert shelf.fingerprint == PartsManifest.read(plain).space
        now = shelf.snapshot()
        for name, (image, text) in products_of(plain).items():
            pairs = now.pairs([now.get(name).row])[0]
            assert pairs[:128].tobytes() == (image or bytes(512))
            assert pairs[128:].tobytes() == (text or bytes(512))
        assert shelf.similar(text="wooden puzzle", k=3).neighbours


def test_a_shelf_of_another_encoder_or_precision_refuses_the_folder(
    plain: Path, tmp_path: Path
) -> None:
    with pytest.raises(EncoderMismatch, match="kinshelf init --encoder"):
        _add(plain, tmp_path, encoder="openai/clip-vit-base-patch16")
    other = {"bf16": "float32", "float32": "bf16"}[PartsManifest.read(plain).precision]
    with pytest.raises(EncoderMismatch, match="precision"):
        _add(plain, tmp_path, encoder=TINY, precision=other)


def test_a_part_that_was_cut_short_is_named(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "encoded"
    encode_source(str(source), folder, options())
    victim = parts(folder)[1]
    victim.write_bytes(victim.read_bytes()[:-10])
    with pytest.raises(UnreadableSource, match=victim.name):
        _add(folder, tmp_path, encoder=TINY)
    victim.unlink()
    assert encode_source(str(source), folder, options()).reused == 4
    assert _add(folder, tmp_path, encoder=TINY).inserted == 118


def test_a_folder_of_something_else_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ClusterError, match="not empty"):
        encode_source(str(source), tmp_path, options())
    folder = tmp_path / "encoded"
    encode_source(str(source), folder, options())
    with pytest.raises(ClusterError, match="part_rows 25, not 30"):
        encode_source(str(source), folder, options(part_rows=30))


def test_the_encoder_of_the_shelf_is_the_default(source: Path, tmp_path: Path) -> None:
    Shelf.create(tmp_path / "a.shelf", encoder=TINY, precision="float32").close()
    arguments = ["encode", str(source), "-o", str(tmp_path / "e"), "--shelf"]
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / "a.shelf"), "--max-rejects", "2"])
    assert result.exit_code == 0, result.output
    manifest = PartsManifest.read(tmp_path / "e")
    assert (manifest.encoder, manifest.precision) == (TINY, "float32")


def test_sources_and_pictures_in_an_object_store_are_read(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    rows = sample_rows(6)
    for row in rows:
        name = Path(row["image"]).name
        store.pipe_file(f"/shop/images/{name}", (catalogue_dir() / "images" / name).read_bytes())
        row["image"] = f"images/{name}"
    rows[4]["image"] = "memory://shop/images/none.jpg"
    write_csv(tmp_path / "products.csv", rows)
    store.put_file(str(tmp_path / "products.csv"), "/shop/products.csv")
    report = encode_source("memory://shop/products.csv", tmp_path / "e", options())
    assert (report.products, report.image_failed) == (6, 1)
    local = encode_source(
        str(write_csv(tmp_path / "local.csv", sample_rows(6))), tmp_path / "l", options()
    )
    assert local.products == 6
    here, there = products_of(tmp_path / "l"), products_of(tmp_path / "e")
    assert [here[i] == there[i] for i in here] == [True] * 4 + [False, True]
    assert here[rows[4]["id"]][1] == there[rows[4]["id"]][1]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on loopback and the folder that it serves."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


def test_a_source_at_a_url_has_its_pictures_beside_it(
    web: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = web
    rows = sample_rows(3)
    for row in rows:
        shutil.copy(row["image"], folder)
        row["image"] = Path(row["image"]).name
    write_csv(folder / "products.csv", rows)
    source = f"{address}/products.csv?version=1"
    report = encode_source(source, tmp_path / "e", options(allow_private_hosts=True))
    assert (report.products, report.image_failed) == (3, 0)
    assert PartsManifest.read(tmp_path / "e").source == source
    with pytest.raises(SourceNotFound, match="HTTP 404"):
        encode_source(f"{address}/none.csv", tmp_path / "n", options())


def test_what_cannot_be_read_or_reached_is_one_line(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="nothing"):
        encode_source("memory://shop/nothing.csv", tmp_path / "a", options())
    with pytest.raises(UnreadableSource, match="ftp://"):
        encode_source("ftp://shop/products.csv", tmp_path / "b", options())
    with pytest.raises(SourceNotFound, match="mistyped"):
        encode_source(str(tmp_path / "mistyped.csv"), tmp_path / "c", options())
    with pytest.raises(InputError, match="part_rows"):
        encode_source(str(source), tmp_path / "c", options(part_rows=0))
    encode_source(str(source), tmp_path / "c", options())  # nothing was left to be in the way


@pytest.mark.parametrize(
    "address", ["127.0.0.1:{free}", "ray://127.0.0.1:{free}", "nowhere", "h:x"]
)
def test_a_cluster_that_is_not_there_is_reported_at_once(
    source: Path, tmp_path: Path, address: str
) -> None:
    started = time.monotonic()
    with pytest.raises(ClusterError, match="cannot be used"):
        encode_source(str(source), tmp_path / "a", options(), ray=address.format(free=free_port()))
    assert time.monotonic() - started < 20


def test_a_part_written_twice_at_once_is_there_once_and_whole(tmp_path: Path) -> None:
    data, path = os.urandom(2**20), tmp_path / "part-0000000-same.parquet"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_once(path, data), range(16)))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == data


def test_a_task_that_cost_its_worker_too_often_is_named_and_left(
    source: Path, plain: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "encoded"
    (folder / TASKS).mkdir(parents=True)
    manifest = PartsManifest.read(plain)
    spec = EncoderSpec(TINY, None, manifest.precision, manifest.fingerprint, manifest.canary)
    tasks = list(read_tasks(source, ReadOptions(batch_size=25), spec.fingerprint, str, str(source)))
    for task in tasks[:2]:
        (folder / TASKS / task.name).with_suffix(".json").write_bytes(task.data)
    (folder / TASKS / tasks[0].name).with_suffix(".tries").write_bytes(b"." * TRIES)
    before = os.environ.get("KINSHELF_THREADS")
    try:
        worker = RayEncoder(spec.dump(), str(folder), 60.0, 1)
        result = worker({"part": [task.name for task in tasks[:2]]})
    finally:
        os.environ.pop("KINSHELF_THREADS", None)
        os.environ |= {} if before is None else {"KINSHELF_THREADS": before}
    assert "given up after 5 tries" in result["error"][0]
    assert result["error"][1] == ""
    assert [path.name for path in parts(folder)] == [tasks[1].name]
    assert parts(folder)[0].read_bytes() == (plain / tasks[1].name).read_bytes()


def test_a_worker_whose_model_differs_encodes_nothing(source: Path, tmp_path: Path) -> None:
    spec = EncoderSpec(TINY, None, "float32", "clip-another", None)
    with pytest.raises(EncoderMismatch, match="same files of the model"):
        spec.load()
