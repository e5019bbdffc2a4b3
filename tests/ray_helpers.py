"""Sample products in any number, a Ray cluster of several nodes on loopback, folders compared."""

from __future__ import annotations

import csv
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kinshelf.samples import catalogue_dir, tiny_clip_dir

BIN = Path(sys.executable).parent
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "KINSHELF_THREADS": "1",
}


def need_ray() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'kinshelf[cluster]'")


def sample_rows(count: int) -> list[dict[str, str]]:
    """The sample catalogue over and over, each time with other ids and titles."""
    with (catalogue_dir() / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    for i in range(count):
        row, turn = dict(rows[i % len(rows)]), i // len(rows)
        row["id"] = f"{row['id']}-{turn}"
        row["title"] = f"{row['title']} no {turn}" if turn else row["title"]
        row["image"] = str(catalogue_dir() / row["image"]) if row["image"] else ""
        found.append(row)
    return found


def encode_command(source: Path, folder: Path, *more: object) -> list[str]:
    command = [BIN / "kinshelf", "encode", source, "-o", folder, "--encoder", tiny_clip_dir()]
    return [str(part) for part in [*command, "--json", *more]]


def encode(source: Path, folder: Path, *more: object, timeout: float = 240) -> Any:
    """Run the command to its end; the finished process, its output as text."""
    return subprocess.run(
        encode_command(source, folder, *more),
        check=False, capture_output=True, text=True, timeout=timeout, env=os.environ | QUIET,
    )  # fmt: skip


def products_of(folder: Path) -> dict[str, tuple[bytes, bytes]]:
    """id → both embeddings as bytes; fails if an id is there twice."""
    found: dict[str, tuple[bytes, bytes]] = {}
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path)
        columns = [table[n] for n in ("id", "image_embedding", "text_embedding")]
        for name, image, text in zip(*columns, strict=True):
            assert name.as_py() not in found, f"{name} is there twice"
            found[name.as_py()] = (_bytes(image), _bytes(text))
    return found


def _bytes(cell: Any) -> bytes:
    return cell.values.to_numpy().tobytes() if cell.is_valid else b""


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def wait_for(what: Any, seconds: float, process: subprocess.Popen[str] | None = None) -> None:
    """Until `what()` is true; fails after `seconds`, or if a process ends before that."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds} s"
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended too soon: {process.communicate()}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Nodes:
    """A Ray head without cores and some workers, each a process group of its own."""

    folder: Path
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, name: str, *more: str) -> None:
        command = [str(BIN / "ray"), "start", "--block", "--node-ip-address=127.0.0.1",
                   "--disable-usage-stats", "--object-store-memory=100000000", *more]  # fmt: skip
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=os.environ | QUIET
            )

    def head(self) -> None:
        self.start(
            "head", "--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false",
            f"--temp-dir={self.folder}/r",
        )  # fmt: skip
        wait_for(self._answers, 60)
        self._joined("head")

    def worker(self, name: str) -> None:
        self.start(name, f"--address={self.address}", "--num-cpus=1")
        self._joined(name)

    def _joined(self, name: str) -> None:
        """Wait for it: nodes that start at once may choose the same ports."""
        log, process = self.folder / f"{name}.log", self.processes[name]
        wait_for(lambda: b"block forever" in log.read_bytes() or process.poll() is not None, 60)
        assert process.poll() is None, log.read_text()

    def kill(self, name: str) -> None:
        """Everything of one node at once, as a machine that loses its power."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Nodes]:
    nodes = Nodes(folder)
    try:
        nodes.head()
        for i in range(workers):
            nodes.worker(f"worker-{i}")
        yield nodes
    finally:
        for name in list(nodes.processes):
            nodes.kill(name)
