"""The connection to PostgreSQL: opened when needed, opened again when it is lost, errors
reported.

A pooler such as PgBouncer in transaction mode gives each transaction another session of the server,
perhaps one that was of another shelf a moment ago. Behind a pooler therefore all work is done in
transactions that name the schema themselves, nothing is prepared, and the writer's lock is held by
a transaction that stays open on a connection of its own. Every change checks the generation in its
own transaction as well, so that a lost lock costs an error and no data.
"""

from __future__ import annotations

import contextlib
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
        self._pooled = False
        self._holding: Connection | None = None
        self.locked = False
        self.folds = self.normalizes = False

    def close(self) -> None:
        """Close the connection, which releases the writer's lock."""
        with self._one_at_a_time:
            self._let_go()
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _let_go(self) -> None:
        if self._holding is not None:
            with contextlib.suppress(self._psycopg.OperationalError):
                self._holding.rollback()  # a pooler may be slow to notice that it was closed
            self._holding.close()
        self._holding = None

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do the work, again if the server went away and came back within PATIENCE."""
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

        retrying = Retrying(
            retry=retry_if_exception(self._lost), stop=stop_after_delay(PATIENCE),
            wait=wait_fixed(_PAUSE), reraise=True,
        )  # fmt: skip
        with self._one_at_a_time:
            try:
                return retrying(lambda: self._done(work))
            except self._psycopg.Error as error:
                raise self._as_error(error) from error

    def _done(self, work: Callable[[Connection], T]) -> T:
        connection = self._connected()
        if not self._pooled:
            return work(connection)
        with connection.transaction():
            self._settle(connection, "LOCAL")
            if self.locked:
                self.lock_here(connection)
            return work(connection)

    def _lost(self, error: BaseException) -> bool:
        """Whether the connection is gone, of a server that was there once."""
        gone = self._connection is None or self._connection.closed
        return self._was_there and gone and isinstance(error, self._psycopg.OperationalError)

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = None
            connection = self._open()
            self._was_there = True
            if self.locked and not self._pooled:
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

        connection = self._connect(autocommit=True)
        connection.adapters.register_loader("json", TextLoader)
        connection.adapters.register_loader("json", TextBinaryLoader)
        # A pooler makes up the process that it names when a connection is opened.
        server = connection.execute("SELECT pg_backend_pid()").fetchone()
        self._pooled = server != (connection.info.backend_pid,)
        if not self._pooled:
            self._settle(connection, "SESSION")
            self._learn(connection)
            return connection
        connection.prepare_threshold = None
        with connection.transaction():
            self._settle(connection, "LOCAL")
            self._learn(connection)
        return connection

    def _connect(self, *, autocommit: bool) -> Connection:
        address = self._address
        return self._psycopg.connect(
            address.url,
            autocommit=autocommit,
            connect_timeout=max(2, int(address.timeout)),
            application_name=f"kinshelf {socket.gethostname()} process {os.getpid()}",
        )

    def _settle(self, connection: Connection, scope: str) -> None:
        """Set the schema and the limit of time, for the session or for a transaction."""
        limit, place = int(self._address.timeout * 1000), self._address.place
        connection.execute(f"SET {scope} statement_timeout = {limit}")
        connection.execute(f'SET {scope} search_path = "{place}", public')

    def _learn(self, connection: Connection) -> None:
        """What the schema has; one that an earlier version made gets the column that it lacks."""
        found = connection.execute(
            "SELECT to_regproc('kin_lower') IS NOT NULL, to_regtype('vector') IS NOT NULL,"
            " to_regclass('products') IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pg_attribute WHERE"
            " attrelid = to_regclass('products') AND attname = 'decided'),"
            " to_regproc('kin_nfkc') IS NOT NULL, to_regclass('products') IS NOT NULL"
        ).fetchone()
        self.folds, has_vector, is_old, self.normalizes, has_products = found or (False,) * 5
        if is_old:  # made before a person's decisions were kept
            connection.execute("ALTER TABLE products ADD COLUMN IF NOT EXISTS decided json")
        if has_products and not self.normalizes:
            self.normalizes = self._give_forms(connection)
        if has_vector:
            from pgvector.psycopg import register_vector

            register_vector(connection)

    def _give_forms(self, connection: Connection) -> bool:
        """Have a schema of an earlier version compare texts in NFKC too; False where the server
        does not know it, or this user may not."""
        from kinshelf.store.engines.postgres.schema import NFKC, can_normalize

        if not can_normalize(connection):
            return False
        with contextlib.suppress(self._psycopg.Error), connection.transaction():
            for statement in NFKC:
                connection.execute(statement)
            return True
        return False

    def lock_here(self, connection: Connection) -> None:
        """Take the writer lock on this connection. Raises ShelfLocked, naming the holder.

        Behind a pooler a connection of its own holds it, which is asked whether it still does.
        """
        if not self._pooled:
            taken = connection.execute(f"SELECT pg_try_advisory_lock({_KEY})").fetchone()
        elif self._holds():
            return
        else:
            taken = self._hold()
        if taken == (True,):
            return
        self._let_go()
        holder = connection.execute(
            "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE"
            " l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
            f" AND ((l.classid::bigint << 32) | l.objid::bigint) = {_KEY}"
        ).fetchone()
        name = holder[0] if holder else "another process"
        raise ShelfLocked(
            f"{self._address.shown} is being written by {name}: wait for it, or give --wait SECONDS"
        )

    def _holds(self) -> bool:
        try:
            return self._holding is not None and bool(self._holding.execute("SELECT 1"))
        except self._psycopg.OperationalError:
            return False

    def _hold(self) -> Any:
        """Open the transaction that holds the lock; whether it got it."""
        self._let_go()
        self._holding = self._connect(autocommit=False)
        self._holding.prepare_threshold = None
        self._settle(self._holding, "LOCAL")
        self._holding.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        return self._holding.execute(f"SELECT pg_try_advisory_xact_lock({_KEY})").fetchone()

    def unlock_here(self, connection: Connection) -> None:
        """Let go of the writer lock."""
        self._let_go()
        if not self._pooled:
            connection.execute("SELECT pg_advisory_unlock_all()")

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
