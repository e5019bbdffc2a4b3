"""The connection to PostgreSQL: opened when needed, opened again when it is lost, errors
reported."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from kinshelf.db.errors import EngineRefused, EngineUnavailable, FilterError, ShelfLocked

if TYPE_CHECKING:
    from psycopg import Connection

    from kinshelf.store.engines.address import Address

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds that a server which was there before may take to come back."""
_PAUSE = 0.1
_KEY = "hashtextextended('kinshelf ' || current_schema(), 0)"


class Link:
    """Runs work on a connection. What is read is read again if the connection is lost meanwhile;
    what is written must be declared safe to repeat, as `PostgresBackend.commit` is."""

    def __init__(self, address: Address) -> None:
        try:
            import pgvector.psycopg  # noqa: F401
            import psycopg
        except ImportError:
            raise EngineUnavailable(
                "PostgreSQL needs packages that are not installed: pip install 'kinshelf[cluster]'"
            ) from None
        self._psycopg = psycopg
        self._address = address
        self._one_at_a_time = threading.RLock()
        self._connection: Connection | None = None
        self._was_there = False
        self.locked = False
        self.folds = False

    def close(self) -> None:
        """Close the connection, which releases the writer's lock."""
        with self._one_at_a_time:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do the work, again if the server went away and came back within PATIENCE."""
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

        retrying = Retrying(
            retry=retry_if_exception(self._lost), stop=stop_after_delay(PATIENCE),
            wait=wait_fixed(_PAUSE), reraise=True,
        )  # fmt: skip
        with self._one_at_a_time:
            try:
                return retrying(lambda: work(self._connected()))
            except self._psycopg.Error as error:
                raise self._as_error(error) from error

    def _lost(self, error: BaseException) -> bool:
        """Whether the connection is gone, of a server that was there once."""
        gone = self._connection is None or self._connection.closed
        return self._was_there and gone and isinstance(error, self._psycopg.OperationalError)

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = None
            connection = self._open()
            self._was_there = True
            if self.locked:
                self._lock_again(connection)
            self._connection = connection
        return self._connection

    def _lock_again(self, connection: Connection) -> None:
        """A lock goes with its connection: without it, nothing may be written on this one."""
        try:
            self.lock_here(connection)
        except BaseException:
            connection.close()
            raise

    def _open(self) -> Connection:
        from psycopg.types.string import TextBinaryLoader, TextLoader

        address = self._address
        connection = self._psycopg.connect(
            address.url,
            autocommit=True,
            connect_timeout=max(2, int(address.timeout)),
            application_name=f"kinshelf {socket.gethostname()} process {os.getpid()}",
        )
        limit = int(address.timeout * 1000)
        connection.execute(f"SET statement_timeout = {limit}")
        connection.execute(f'SET search_path = "{address.place}", public')
        connection.adapters.register_loader("json", TextLoader)
        connection.adapters.register_loader("json", TextBinaryLoader)
        found = connection.execute(
            "SELECT to_regproc('kin_lower') IS NOT NULL, to_regtype('vector') IS NOT NULL,"
            " to_regclass('products') IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pg_attribute WHERE"
            " attrelid = to_regclass('products') AND attname = 'decided')"
        ).fetchone()
        self.folds, has_vector, is_old = found or (False, False, False)
        if is_old:  # made before a person's decisions were kept
            connection.execute("ALTER TABLE products ADD COLUMN IF NOT EXISTS decided json")
        if has_vector:
            from pgvector.psycopg import register_vector

            register_vector(connection)
        return connection

    def lock_here(self, connection: Connection) -> None:
        """Take the writer lock on this connection. Raises ShelfLocked, naming the holder."""
        taken = connection.execute(f"SELECT pg_try_advisory_lock({_KEY})").fetchone()
        if taken == (True,):
            return
        holder = connection.execute(
            "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE"
            " l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
            f" AND ((l.classid::bigint << 32) | l.objid::bigint) = {_KEY}"
        ).fetchone()
        name = holder[0] if holder else "another process"
        raise ShelfLocked(
            f"{self._address.shown} is being written by {name}: wait for it, or give --wait SECONDS"
        )

    def _as_error(self, error: Exception) -> Exception:
        errors, shown = self._psycopg.errors, self._address.shown
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, errors.QueryCanceled):
            return EngineUnavailable(
                f"{shown} did not answer within {self._address.timeout:g} s: try again, or allow"
                " more with ?timeout=SECONDS in the address"
            )
        if isinstance(error, self._psycopg.DataError):
            return FilterError(f"{shown} cannot compute that filter ({first}): write it otherwise")
        if isinstance(error, self._psycopg.OperationalError) and _is_lost(error):
            return EngineUnavailable(f"{shown} cannot be reached ({first}): is the server running?")
        return EngineRefused(f"{shown} refused: {first}")


def _is_lost(error: Any) -> bool:
    """Whether the server could not be reached, or ended the connection; else it answered."""
    return (error.sqlstate or "08")[:2] in ("08", "57")
