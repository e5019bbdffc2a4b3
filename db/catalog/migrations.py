"""The catalogue's schema, as numbered steps. A step is never edited once released; add another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def _m001_products(connection: duckdb.DuckDBPyConnection) -> None:
    # No primary key: DuckDB's index type has given wrong results, and the log guards uniqueness.
    connection.execute(
        """CREATE TABLE products (
            row BIGINT NOT NULL, id VARCHAR NOT NULL, title VARCHAR, description VARCHAR,
            category VARCHAR, price DOUBLE, brand VARCHAR, image VARCHAR, split VARCHAR,
            attributes JSON, has_image BOOLEAN, has_text BOOLEAN, image_hash VARCHAR,
            image_error VARCHAR, content_hash VARCHAR, added BIGINT NOT NULL, removed BIGINT)"""
    )


def _m002_commits(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        """CREATE TABLE commits (
            generation BIGINT NOT NULL, time TIMESTAMP, kind VARCHAR, command VARCHAR,
            inserted BIGINT, updated BIGINT, removed BIGINT, rejected BIGINT)"""
    )


def _m003_rejects(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        """CREATE TABLE rejects (
            key VARCHAR NOT NULL, source VARCHAR, position BIGINT, id VARCHAR, reason VARCHAR,
            message VARCHAR, kept BOOLEAN, record JSON, generation BIGINT NOT NULL,
            resolved BIGINT)"""
    )


def _m004_probes(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        """CREATE TABLE probes (
            version BIGINT NOT NULL, generation BIGINT NOT NULL, trained_on BIGINT,
            classes BIGINT, files JSON, metrics JSON)"""
    )


def _m005_attributes(connection: duckdb.DuckDBPyConnection) -> None:
    # Kept beside the products: reading every product's JSON for its keys takes seconds.
    connection.execute(
        "CREATE TABLE attributes (name VARCHAR NOT NULL, type VARCHAR NOT NULL, generation BIGINT)"
    )


def _m006_decided(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("ALTER TABLE products ADD COLUMN decided JSON")


def _m007_operations(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("ALTER TABLE commits ADD COLUMN operation BIGINT")
    connection.execute("ALTER TABLE commits ADD COLUMN who VARCHAR")


MIGRATIONS: list[Callable[[duckdb.DuckDBPyConnection], None]] = [
    _m001_products,
    _m002_commits,
    _m003_rejects,
    _m004_probes,
    _m005_attributes,
    _m006_decided,
    _m007_operations,
]


def migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Bring a catalogue of any earlier version, or an empty one, to the newest schema."""
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT)")
    row = connection.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
    done = int(row[0]) if row else 0
    for number, step in enumerate(MIGRATIONS[done:], start=done + 1):
        step(connection)
        connection.execute("INSERT INTO schema_version VALUES (?)", [number])
    connection.execute("COMMIT")
