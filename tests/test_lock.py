"""One writer at a time; who is refused is reported by whom, and a dead holder holds nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from kinshelf.db.errors import ShelfError, ShelfLocked
from kinshelf.store.log.lock import NAME, WriterLock

HOLD = """
import sys, time
from pathlib import Path
from kinshelf.store.log.lock import WriterLock
with WriterLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(directory: Path, seconds: float) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", HOLD, str(directory), str(seconds), "--some-command"]
    child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    child = hold(tmp_path, 300)
    with child:
        yield child
        child.kill()


def test_a_second_writer_is_refused_at_once_and_reported_who_holds_the_lock(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    started = time.perf_counter()
    with pytest.raises(ShelfLocked) as caught, WriterLock(tmp_path):
        pass
    assert time.perf_counter() - started < 10
    message = str(caught.value)
    assert f"process {holder.pid} on {socket.gethostname()}" in message
    assert "--some-command" in message
    assert time.strftime("%Y-%m-%dT") in message


def test_the_lock_is_free_after_its_holder_was_killed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with WriterLock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_a_writer_that_waits_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    with hold(tmp_path, 0.5), WriterLock(tmp_path, wait=30):
        pass


def test_waiting_ends_after_the_time_that_was_given(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    started = time.perf_counter()
    with pytest.raises(ShelfLocked), WriterLock(tmp_path, wait=0.2):
        pass
    assert 0.2 <= time.perf_counter() - started < 60


def test_the_lock_is_reentrant_in_its_thread_and_kept_until_the_outermost_end(
    tmp_path: Path,
) -> None:
    lock, other = WriterLock(tmp_path), WriterLock(tmp_path)
    with lock:
        with lock:
            pass
        with pytest.raises(ShelfLocked), other:
            pass
    with other:
        pass


def test_threads_of_one_handle_take_turns(tmp_path: Path) -> None:
    lock, inside, most = WriterLock(tmp_path), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_note_that_cannot_be_read_still_refuses(tmp_path: Path) -> None:
    with WriterLock(tmp_path):
        (tmp_path / NAME).write_bytes(b"\x00{damaged")
        with pytest.raises(ShelfLocked, match="another process"), WriterLock(tmp_path):
            pass


def test_a_lock_file_that_was_deleted_and_made_again_guards_again(tmp_path: Path) -> None:
    with WriterLock(tmp_path):
        pass
    (tmp_path / NAME).unlink()
    with WriterLock(tmp_path), pytest.raises(ShelfLocked), WriterLock(tmp_path):
        pass


def test_a_lock_file_that_was_renamed_and_made_again_guards_again(tmp_path: Path) -> None:
    """Why `filelock.FileLock` is not used: it takes the lock of the file that was there before."""
    taken = WriterLock._is_current

    def renamed(self: WriterLock, fd: int) -> bool:
        if not (tmp_path / "old").exists():  # between the opening and the locking
            (tmp_path / NAME).rename(tmp_path / "old")
            (tmp_path / NAME).touch()
        return taken(self, fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WriterLock, "_is_current", renamed)
        with WriterLock(tmp_path, wait=10), pytest.raises(ShelfLocked), WriterLock(tmp_path):
            pass


def test_the_note_is_that_of_the_holder_whoever_tries(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    """Another program's lock on the same file contends, and leaves the note as it is."""
    note = (tmp_path / NAME).read_bytes()
    for _ in range(3):
        with pytest.raises(ShelfLocked), WriterLock(tmp_path):
            pass
        with pytest.raises(Timeout):
            FileLock(tmp_path / NAME, timeout=0).acquire()
    assert (tmp_path / NAME).read_bytes() == note
    assert json.loads(note)["pid"] == holder.pid


def test_a_forked_child_that_ends_leaves_its_parents_lock(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from kinshelf.store.log.lock import WriterLock\n"
        "with WriterLock(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        os.waitpid(child, 0)\n"
        "        print('ended', flush=True)\n"
        "        sys.stdin.read()\n"
    )
    line = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ended\n"
        with pytest.raises(ShelfLocked, match=str(parent.pid)), WriterLock(tmp_path):
            pass
        parent.communicate()
    with WriterLock(tmp_path):
        pass


def test_a_failure_while_locking_leaves_the_lock_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise KeyboardInterrupt

    lock = WriterLock(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("kinshelf.store.log.lock._write_note", fail)
        with pytest.raises(KeyboardInterrupt), lock:
            pass
    with lock, pytest.raises(ShelfLocked), WriterLock(tmp_path):
        pass


def test_a_directory_that_cannot_be_written_reports_it(tmp_path: Path) -> None:
    with pytest.raises(ShelfError, match="nothing was changed"), WriterLock(tmp_path / "none"):
        pass
