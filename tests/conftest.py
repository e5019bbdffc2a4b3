"""A small deterministic encoder, shelves over it, and the real data where it is at hand."""

from __future__ import annotations

import collections
import csv
import gc
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

# Before NumPy and torch are imported, and for processes that tests begin: in matrices this small
# threads only wait for each other, ten times as long where the machine is busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # FAISS has the threads of KINSHELF_THREADS

import hypothesis
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from kinshelf import Shelf

# A slow machine, or a busy one, is no failure: examples take the time that they take.
hypothesis.settings.register_profile(
    "kinshelf", deadline=None, derandomize=True,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture,
    ],
)  # fmt: skip
hypothesis.settings.load_profile("kinshelf")

AMAZON = Path(__file__).resolve().parents[2] / "shared" / "amazon2020"


@pytest.fixture
def amazon() -> Path:
    """The folder of real products; a test that asks for it is skipped where it is not."""
    if not AMAZON.is_dir():
        pytest.skip("the Amazon 2020 data is not beside this checkout (../shared/amazon2020)")
    return AMAZON


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def seeded(key: bytes, dimension: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(dimension)


class FakeEncoder:
    """Embeds a picture by its mean colour and a text by its words; counts what it encodes."""

    def __init__(self, name: str = "fake", dimension: int = 16) -> None:
        self.name = name
        self.dimension = dimension
        self.fingerprint = f"fake-{name}-{dimension}"
        self.images = 0
        self.texts = 0

    def preprocess(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((4, 4)), dtype=np.uint8)

    def encode_pixels(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        self.images += len(pixels)
        mix = np.random.default_rng(0).standard_normal((48, self.dimension))
        return unit(np.stack([p.reshape(-1) / 255 + 0.01 for p in pixels]) @ mix)

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.encode_pixels([self.preprocess(image) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += len(texts)
        words = [[seeded(w.encode(), self.dimension) for w in t.split()] for t in texts]
        return unit(np.stack([np.sum(w, axis=0) for w in words]))

    def count_truncated(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) > 20 for text in texts)


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def shelf(tmp_path: Path, encoder: FakeEncoder) -> Any:
    Shelf.create(tmp_path / "toys.shelf", encoder="fake").close()
    with Shelf.open(tmp_path / "toys.shelf", encoder=encoder) as opened:
        yield opened


COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def make_catalogue(folder: Path, count: int = 30) -> Path:
    """A CSV of products in three categories, each with a picture of its own shade."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(COLOURS)
    rows = []
    for i in range(count):
        colour = names[i % 3]
        shade = tuple((c + 7 * i) % 256 for c in COLOURS[colour])
        Image.new("RGB", (64, 64), shade).save(folder / f"p{i}.png")
        rows.append(
            {
                "id": f"p{i}",
                "title": f"{colour} thing number {i}",
                "category": f"Things | {colour.title()}",
                "price": str(i + 0.5),
                "image": f"p{i}.png",
                "colour": colour,
            }
        )
    return write_csv(folder / "products.csv", rows)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    return make_catalogue(tmp_path / "source")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A shelf that all test processes share, made by the first that asks: to be copied."""
    base = factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    done = folder / f"{name}.made"
    with FileLock(folder / f"{name}.lock"):
        if not done.exists():
            make(folder / f"{name}.shelf")
            done.touch()
    return folder / f"{name}.shelf"


@pytest.fixture(scope="session")
def sample_shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained shelf over a part of the sample, for this process: to be copied."""
    from browser import add_hostile, chromium, make_shelf

    def make(path: Path) -> None:
        make_shelf(path)
        add_hostile(path)

    chromium()  # where there is none, nobody waits for the shelf
    made = made_once(tmp_path_factory, "sample", make)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("sample") / "sample.shelf"))


@pytest.fixture(scope="module")
def server(sample_shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server over a copy of it."""
    from browser import served

    copy = tmp_path_factory.mktemp("served") / "sample.shelf"
    shutil.copytree(sample_shelf, copy)
    with served(copy) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium."""
    from browser import opened_browser

    with opened_browser() as opened:
        yield opened


@pytest.fixture
def visit(browser: Any, server: Any) -> Iterator[Any]:
    """A page of the server in a browser; whatever went wrong in it fails the test."""
    from browser import Visit

    visiting = Visit(browser, server)
    yield visiting
    visiting.check()
    visiting.context.close()


def pytest_configure(config: pytest.Config) -> None:
    """Say at the very end what was not tested, behind pytest's own last line."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_NotTested(), "kinshelf-not-tested")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was captured goes from process to process as UTF-8, which has no lone surrogates."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


WIDE = (
    "faults/", "test_amazon", "test_canary", "test_compact", "test_download", "test_encode_ahead",
    "test_engine_", "test_moved_encoder", "test_page_", "test_ray_", "test_reembed",
    "test_refresh_images", "test_repair_oracle", "test_round_trip", "test_sectors",
    "test_serve_batching", "test_serve_encoding", "test_serve_process", "test_serve_schema",
    "test_swapped_files", "test_two_writers", "test_whole_files",
)  # fmt: skip
"""Files whose tests start servers, engines, browsers or many processes, or embed much."""


def pytest_sessionstart() -> None:
    """What is collected lives to the end: looking for garbage in it took half of the collection."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor is it looked through again and again while the tests run."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the wide tests, which `make test-quick` leaves out."""
    for item in items:
        place = item.path.relative_to(Path(__file__).parent).as_posix()
        if place.startswith(WIDE):
            item.add_marker("wide")


class _NotTested:
    """Counts skipped tests by reason; one line at the end of the output."""

    def __init__(self) -> None:
        self.reasons: collections.Counter[str] = collections.Counter()

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            self.reasons[str(report.longrepr[2]).removeprefix("Skipped: ")] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        if config.option.collectonly:
            return
        reported = [f"{count} ({reason})" for reason, count in self.reasons.most_common()]
        line = (
            f"not tested: {'; '.join(reported)}" if reported else "not tested: nothing was skipped"
        )
        print(line, file=sys.__stdout__, flush=True)
