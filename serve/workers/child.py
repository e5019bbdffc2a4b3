"""A process that another one asks and may kill: the one kind that the server has.

The two speak over the child's standard input and output: each message is one line of JSON and raw
bytes, never pickle, so that nothing that arrives is executed. The child is spawned, never forked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

_LARGEST = 512 * 2**20


class Dead(Exception):
    """The other process could not begin, has ended, or does not speak as it should."""


class Channel:
    """Messages to and from another process. Any thread may send; one receives."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = Connection(os.dup(incoming), writable=False)
        self._outgoing = Connection(os.dup(outgoing), readable=False)
        self._sending = threading.Lock()

    def send(self, head: Mapping[str, Any], data: bytes | memoryview = b"") -> None:
        """Send one message. Raises Dead where nobody is left to read it."""
        message = b"\n".join((json.dumps(head).encode(), data))
        try:
            with self._sending:
                self._outgoing.send_bytes(message)
        except OSError as error:
            raise Dead from error

    def receive(self) -> tuple[Any, bytes]:
        """Receive one message. Raises Dead at the end, and for what is no message."""
        try:
            head, _, data = self._incoming.recv_bytes(_LARGEST).partition(b"\n")
            return json.loads(head), data
        except (OSError, EOFError, ValueError) as error:
            raise Dead from error

    def finish(self) -> None:
        """Send nothing more."""
        with self._sending, suppress(OSError):
            self._outgoing.close()

    def close(self) -> None:
        """Receive nothing more either; by the thread that receives."""
        self.finish()
        with suppress(OSError):
            self._incoming.close()


class Child(Channel):
    """A process that runs `python -m MODULE ARGUMENTS`. It ends when its standard input does.

    `pipe` is how many bytes each way holds. `changes` are made to its environment.
    Raises Dead where it cannot be begun.
    """

    def __init__(
        self, module: str, *arguments: str, pipe: int, changes: Mapping[str, str] | None = None
    ) -> None:
        command = [sys.executable, "-m", module, *arguments]
        try:
            self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
                env=os.environ | (changes or {}), pipesize=pipe, bufsize=0,
            )  # fmt: skip
        except OSError as error:
            raise Dead from error
        self.pid = self._process.pid
        assert self._process.stdin and self._process.stdout
        with self._process.stdin as stdin, self._process.stdout as stdout:
            super().__init__(stdout.fileno(), stdin.fileno())

    @property
    def lives(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it, from any thread, and come back at once."""
        self._process.kill()

    def wait(self) -> None:
        """Come back when it has ended."""
        self._process.wait()

    def end(self) -> None:
        """Kill it and wait for its end; by the thread that receives."""
        self.kill()
        self.wait()
        self.close()


def to_parent() -> Channel:
    """The way to the process that began this one, on its standard input and output.

    What a library prints from now on goes to standard error.
    """
    channel = Channel(0, 1)
    os.dup2(2, 1)
    return channel
