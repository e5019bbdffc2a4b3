"""Systems that lack what Linux has, and the promise that a library changes nothing of its host."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from kinshelf import Shelf
from kinshelf.cli import main
from kinshelf.db import host
from kinshelf.db.errors import KinshelfError, ShelfError
from kinshelf.store.log import disk

# ---- syncing


def synced(path: Path, monkeypatch: pytest.MonkeyPatch, full: Any) -> list[str]:
    """What is called to write `path`, where F_FULLFSYNC does `full`, or is unknown."""
    calls: list[str] = []

    def note(name: str, real: Any) -> Any:
        return lambda *a: (calls.append(name), real(*a))[1]

    for name in ("fsync", "fdatasync"):
        if hasattr(os, name):
            monkeypatch.setattr(os, name, note(name, getattr(os, name)))
    if full is not None:
        both = SimpleNamespace(F_FULLFSYNC=51, fcntl=note("full", full))
        monkeypatch.setattr(disk, "fcntl", both)
    disk.replace(path, b"whole")
    assert path.read_bytes() == b"whole"
    return calls


def test_linux_syncs_the_data_of_a_file_and_the_entries_of_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "fdatasync"):
        pytest.skip("this system has no fdatasync")
    assert synced(tmp_path / "file", monkeypatch, None) == ["fdatasync", "fsync"]


def test_without_fdatasync_fsync_does_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "fdatasync", raising=False)
    assert synced(tmp_path / "file", monkeypatch, None) == ["fsync", "fsync"]


def test_macos_syncs_past_the_cache_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = synced(tmp_path / "file", monkeypatch, lambda _fd, _what: 0)
    assert calls == ["full", "full"]


def test_a_file_system_without_full_sync_gets_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_fd: int, _what: int) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.delattr(os, "fdatasync", raising=False)
    assert synced(tmp_path / "file", monkeypatch, unknown) == ["full", "fsync"] * 2


def test_a_disk_that_fails_is_not_taken_for_one_without_full_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_fd: int, _what: int) -> None:
        raise OSError(errno.EIO, "broken")

    with pytest.raises(OSError, match="broken"):
        synced(tmp_path / "file", monkeypatch, broken)


def test_a_shelf_is_written_and_read_without_fdatasync_and_with_full_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "fdatasync", raising=False)
    both = SimpleNamespace(F_FULLFSYNC=51, fcntl=lambda _fd, _what: 0)
    monkeypatch.setattr(disk, "fcntl", both)
    Shelf.create(tmp_path / "own.shelf").close()
    with Shelf.open(tmp_path / "own.shelf") as shelf:
        assert shelf.generation == 0


# ---- a system that has no shelves


def test_a_system_that_cannot_keep_a_shelf_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shelf.create(tmp_path / "own.shelf").close()
    monkeypatch.delattr(os, "pwrite")
    monkeypatch.setattr(disk, "fcntl", None)
    reported = CliRunner().invoke(main, ["info", str(tmp_path / "own.shelf")])
    assert reported.exit_code == 3
    assert reported.output.startswith(
        "Error: kinshelf runs on Linux and macOS; this system lacks pwr"
    )
    assert reported.output.count("\n") == 1
    for work in (Shelf.create, Shelf.open):
        with pytest.raises(ShelfError, match="WSL"):
            work(tmp_path / "own.shelf")
    with pytest.raises(ShelfError, match="WSL"):
        Shelf.create(tmp_path / "new.shelf")
    assert not (tmp_path / "new.shelf").exists()


def test_the_command_line_is_imported_where_these_modules_are_not() -> None:
    script = (
        "import os, sys\n"
        "sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "for name in ('pwrite', 'pread', 'preadv', 'fdatasync'): delattr(os, name)\n"
        "from kinshelf.cli import main\n"
        "main(['info', 'x.shelf'])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert found.returncode == 3
    assert found.stderr.startswith("Error: kinshelf runs on Linux and macOS")
    assert found.stderr.count("\n") == 1


def test_threads_are_counted_and_memory_is_kept_without_these_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kinshelf.db import threads

    monkeypatch.delenv(threads.SETTING, raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert threads.threads() == os.cpu_count()

    def no_glibc(_name: None) -> Any:
        return SimpleNamespace()

    monkeypatch.setattr(threads.ctypes, "CDLL", no_glibc)
    threads.return_memory()
    host._share_memory()


# ---- limits of a process that decodes


@pytest.mark.parametrize("resource", ["lacking", "refusing", "not enforcing"])
def test_a_decoder_is_limited_without_setrlimit_too(resource: str) -> None:
    pytest.importorskip("psutil")
    script = (
        "import sys, psutil\n"
        "def refuse(*_): raise ValueError('current limit exceeds maximum limit')\n"
        f"kind = {resource!r}\n"
        "if kind == 'lacking': sys.modules['resource'] = None\n"
        "if kind == 'refusing': import resource; resource.setrlimit = refuse\n"
        "if kind == 'not enforcing':\n"
        "    import resource; resource.setrlimit = lambda *_: None; sys.platform = 'darwin'\n"
        "from kinshelf.serve.workers import decoder\n"
        "decoder._limit(200_000_000)\n"
        "import time\n"
        "print('begun', flush=True)\n"
        "kept = []\n"
        "for _ in range(100): kept.append(bytearray(b'x') * 10_000_000); time.sleep(0.05)\n"
        "print('not ended')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (1, "begun\n"), found.stderr


# ---- the host of a library

HOST = """
import importlib, json, locale, logging, os, pkgutil, signal, sys, warnings
from pathlib import Path
import numpy, torch, threadpoolctl, faiss, sklearn, PIL.Image, pyarrow, duckdb
import transformers, huggingface_hub
for name in ("pymilvus", "ray", "uvicorn", "psycopg"):
    try: importlib.import_module(name)
    except ImportError: pass
logging.getLogger("ray.data"); logging.getLogger("milvus_lite")

def state():
    loggers = {
        name: (found.level, found.disabled, found.propagate, str(found.handlers + found.filters))
        for name, found in logging.root.manager.loggerDict.items()
        if isinstance(found, logging.Logger) and name.split(".")[0] != "kinshelf"
    }
    return {
        "environment": dict(os.environ), "loggers": loggers,
        "root": (logging.root.level, len(logging.root.handlers)),
        "torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "faiss": faiss.omp_get_max_threads(),
        "pools": [(p["filepath"], p["num_threads"]) for p in threadpoolctl.threadpool_info()],
        "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "umask": [os.umask(0o22), os.umask(0o22)][1], "warnings": len(warnings.filters),
        "pixels": PIL.Image.MAX_IMAGE_PIXELS, "limit": sys.getrecursionlimit(),
        "hooks": (sys.excepthook is sys.__excepthook__, locale.setlocale(locale.LC_ALL)),
        "telemetry": huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY,
    }

import ctypes
real, arenas = ctypes.CDLL.__getattr__, []
def watched(self, name):
    arenas.append(name)
    return real(self, name)
ctypes.CDLL.__getattr__ = watched

import kinshelf
folder, failed, done = Path(kinshelf.__file__).parent, [], []
root = folder.resolve()
rooms = [r for r in ("db", "store", "probe", "serve", "cluster", "commands", "samples")]
before = state()
for room in rooms:
    for file in sorted((root / room).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if "generator" in parts or "training" in parts: continue
        name = ".".join(["kinshelf", *parts]).removesuffix(".__init__")
        try: importlib.import_module(name)
        except ImportError as error: failed.append(f"{name}: {error}")
        else: done.append(name)
for name in ("kinshelf.cli", "kinshelf.face"): importlib.import_module(name)
after = state()
for name in list(after["loggers"]):
    if name not in before["loggers"]: del after["loggers"][name]
new = [p for p in after["pools"] if p[0] in dict(before["pools"])]
after["pools"] = new
changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
print(json.dumps({
    "changed": changed, "failed": failed, "done": len(done), "malloc": "mallopt" in arenas,
}))
"""


@pytest.mark.wide
def test_importing_every_module_changes_nothing_of_the_host() -> None:
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HOST], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    reported = json.loads(found.stdout.splitlines()[-1])
    assert reported["changed"] == {}
    assert not reported["malloc"]
    assert reported["done"] > 200
    missing = ("ray", "pymilvus", "psycopg", "pgvector", "fsspec")
    assert all(any(name in line for name in missing) for line in reported["failed"]), reported[
        "failed"
    ]


def test_importing_the_face_alone_brings_no_large_library() -> None:
    script = (
        "import sys, logging; import kinshelf\n"
        "assert logging.getLogger().handlers == []\n"
        "print([n for n in ('numpy', 'torch', 'faiss') if n in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert found.stdout == b"[]\n"


def test_variables_that_a_call_needs_are_gone_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KINSHELF_A", raising=False)
    monkeypatch.setenv("KINSHELF_B", "the user's")
    with pytest.raises(ValueError), host.environment({"KINSHELF_A": "1", "KINSHELF_B": "1"}):
        assert (os.environ["KINSHELF_A"], os.environ["KINSHELF_B"]) == ("1", "the user's")
        raise ValueError
    assert "KINSHELF_A" not in os.environ
    assert os.environ["KINSHELF_B"] == "the user's"


def test_the_hub_is_asked_without_telemetry_and_the_setting_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    from kinshelf.store.encode import hub

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    seen: list[bool] = []
    monkeypatch.setattr(
        hub, "_cached", lambda *_: seen.append(constants.HF_HUB_DISABLE_TELEMETRY) or Path()
    )
    hub._from_hub("somebody/model", None)
    assert seen == [True]
    assert constants.HF_HUB_DISABLE_TELEMETRY is False


def test_foreign_loggers_are_muted_in_a_process_of_our_own_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    foreign = logging.getLogger("somebody.else")
    monkeypatch.setattr(host, "_own", False)
    host.mute("somebody.else")
    assert foreign.level == logging.NOTSET
    monkeypatch.setattr(host, "_own", True)
    host.mute("somebody.else")
    assert foreign.level > logging.CRITICAL
    foreign.setLevel(logging.NOTSET)


def test_a_command_takes_its_process_over(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from kinshelf.cli import main\n"
        "try: main(['info', 'x.shelf'])\n"
        "except SystemExit: pass\n"
        "from kinshelf.db import host\n"
        "assert host._own\n"
        "assert all(name in os.environ for name in host.ENVIRONMENT)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=tmp_path)


# ---- what is gone on without


def test_a_catalogue_that_is_not_saved_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from kinshelf.store.log import catalog_cache

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    Shelf.create(tmp_path / "own.shelf").close()
    shelf = Shelf.open(tmp_path / "own.shelf")
    shelf._wrote = True  # type: ignore[attr-defined]
    monkeypatch.setattr(catalog_cache, "save_catalog", refuse)
    with caplog.at_level(logging.INFO, "kinshelf"):
        shelf.close()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("kinshelf.store", "WARNING")
    assert "No space left on device" in record.message
    assert "catalogue is not saved" in record.message


def test_a_killed_decoder_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    from kinshelf.serve.workers.decoding import Decoders

    large = io.BytesIO()
    Image.new("RGB", (6000, 6000), "red").save(large, "PNG")
    decoders = Decoders(1, seconds=0.01, memory=1_500_000_000, pixels=40_000_000)
    with caplog.at_level(logging.INFO, "kinshelf.serve"), pytest.raises(KinshelfError):
        decoders.pixels(large.getvalue(), None)
    decoders.close()
    assert [record.name for record in caplog.records] == ["kinshelf.serve"]


def test_nothing_is_printed_where_nobody_listens() -> None:
    script = (
        "from kinshelf.db.logs import tolerated\n"
        "with tolerated(OSError, room='store', then='nothing follows'):\n"
        "    raise OSError('gone')\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert (found.stdout, found.stderr) == (b"", b"")
