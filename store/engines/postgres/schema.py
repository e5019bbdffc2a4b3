"""The tables of a shelf in PostgreSQL, one schema a shelf."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kinshelf.db.errors import EngineRefused

if TYPE_CHECKING:
    from psycopg import Connection

_HAS_NORMALIZE = 130_000
NEEDED = (0, 8)
"""Of pgvector."""
TABLES = (
    """CREATE TABLE products (
        row bigint PRIMARY KEY, id text COLLATE "C" NOT NULL, title text COLLATE "C",
        description text COLLATE "C", category text COLLATE "C", price double precision,
        brand text COLLATE "C", image text COLLATE "C", split text COLLATE "C", attributes json,
        has_image boolean, has_text boolean, image_hash text COLLATE "C",
        image_error text COLLATE "C", content_hash text COLLATE "C", added bigint NOT NULL,
        removed bigint, embedding vector NOT NULL, decided json)""",
    "CREATE INDEX products_id ON products USING hash (id)",
    "CREATE INDEX products_category ON products (category) WHERE removed IS NULL",
    "CREATE INDEX products_added ON products (added)",
    "CREATE INDEX products_removed ON products (removed) WHERE removed IS NOT NULL",
    # The change log: what each generation did, but for the products themselves.
    """CREATE TABLE log (
        generation bigint PRIMARY KEY, token text NOT NULL, head text NOT NULL,
        body text NOT NULL)""",
    """CREATE TABLE files (
        version bigint NOT NULL, name text NOT NULL, bytes bytea NOT NULL,
        PRIMARY KEY (version, name))""",
    """CREATE TABLE state (
        one boolean PRIMARY KEY DEFAULT true CHECK (one), generation bigint NOT NULL,
        next_row bigint NOT NULL, base bigint NOT NULL, indexed bigint NOT NULL,
        manifest text NOT NULL)""",
    """CREATE FUNCTION kin_ends_with(text, text) RETURNS boolean LANGUAGE sql
        IMMUTABLE PARALLEL SAFE AS 'SELECT right($1, length($2)) = $2'""",
)  # fmt: skip
COLLATIONS = ("und-x-icu", "pg_c_utf8", "C.utf8", "en_US.utf8")
"""Those that know upper and lower case beyond ASCII, the first that is there is taken."""
LOWER, UPPER = (
    f"CREATE FUNCTION kin_{name}(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE"
    f' AS \'SELECT {name}($1 COLLATE "{{}}") COLLATE "C"\''
    for name in ("lower", "upper")
)
NFKC = (
    "CREATE OR REPLACE FUNCTION kin_nfkc(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS"
    " 'SELECT CASE WHEN octet_length($1) = char_length($1) THEN $1 ELSE normalize($1, NFKC) END'",
    "CREATE INDEX IF NOT EXISTS products_category_nfkc ON products (kin_nfkc(category))"
    " WHERE removed IS NULL",
)
"""The form in which texts are compared, from PostgreSQL 13 on; a text that is ASCII has it."""
INDEX = (
    "CREATE INDEX IF NOT EXISTS products_embedding ON products USING hnsw"
    " ((embedding::halfvec({width})) halfvec_ip_ops) WITH (m = 16, ef_construction = 128)"
)


def create_tables(connection: Connection, schema: str) -> None:
    """Make the schema and all that is in it; the caller is in a transaction."""
    # A name of a shelf is checked before (see store/engines/address.py): letters, digits and _.
    connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public")
    _check_version(connection)
    for statement in TABLES:
        connection.execute(statement)
    found = connection.execute(
        "SELECT collname FROM pg_collation WHERE collname = ANY(%s) AND collencoding IN"
        " (-1, pg_char_to_encoding(getdatabaseencoding()))",
        [list(COLLATIONS)],
    ).fetchall()
    there = {name for (name,) in found}
    if can_normalize(connection):
        for statement in NFKC:
            connection.execute(statement)
    for name in [name for name in COLLATIONS if name in there][:1]:
        for statement in (LOWER, UPPER):
            connection.execute(statement.format(name))


def can_normalize(connection: Connection) -> bool:
    """Whether the server knows Unicode's forms."""
    utf_8 = connection.execute("SELECT current_setting('server_encoding') = 'UTF8'").fetchone()
    return utf_8 == (True,) and int(connection.info.server_version) >= _HAS_NORMALIZE


def _check_version(connection: Connection) -> None:
    """Raises EngineRefused where pgvector cannot look on until enough rows match a filter."""
    found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    version = str((found.fetchone() or ("0.0",))[0])
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < NEEDED:
        raise EngineRefused(
            f"pgvector is {version} here, {NEEDED[0]}.{NEEDED[1]} or newer is needed: ALTER"
            " EXTENSION vector UPDATE, or update its package first"
        )
