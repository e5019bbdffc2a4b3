"""Parquet, read as a stream by an in-memory DuckDB that may load no extension."""

from __future__ import annotations

import re
from contextlib import contextmanager
from itertools import repeat
from typing import TYPE_CHECKING

from kinshelf.db.errors import EmptySource, UnreadableSource
from kinshelf.db.filters.names import quoted
from kinshelf.db.formats.source import MAX_ROW, BadRow, check_width, too_long
from kinshelf.db.layouts.names import EMBEDDINGS, key_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    import duckdb

_FETCH = 64
"""Rows as Python objects at once: a small file may unpack to rows of `MAX_ROW` each."""
_LONGEST_LIST = 2**16
_FLOAT_DIGITS = 15
_BLOCK = 8192
"""Rows of vectors held at once: 64 MiB for two embeddings of 1,024."""

_CLOSED = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # One thread keeps the file's order without holding back what others read ahead.
    "threads": "1",
}
# The progress bar would go to standard output, where answers go.
_SESSION = (
    "SET TimeZone = 'UTC'; SET enable_progress_bar = false; "
    # Prefetching takes a whole row group of vectors into memory and is no faster from a disk.
    "SET disable_parquet_prefetching = true"
)
_FILE = "read_parquet(?, hive_partitioning = false)"
_NUMBERED = "read_parquet(?, hive_partitioning = false, file_row_number = true)"
_PLAIN = re.compile(r"VARCHAR|BOOLEAN|FLOAT|DOUBLE|U?(?:TINY|SMALL|BIG)INT|U?INTEGER")
_NUMBER = re.compile(r"BOOLEAN|FLOAT|DOUBLE|DECIMAL.*|U?(?:TINY|SMALL|BIG)INT|U?INTEGER")
_VECTOR = re.compile(r"(?:FLOAT|DOUBLE)\[\d*\]")


class ParquetSource:
    """A Parquet file; its values come as str, int, float, bool or None.

    Dates and times come as ISO 8601 text (UTC where they have a zone), decimals as floats (of
    more than 15 digits as text), lists and structures as JSON text, bytes as text where they are
    UTF-8 and else not at all. The columns `image_embedding` and `text_embedding`, where they are
    lists of floats, come as arrays.
    """

    from_text = False

    def __init__(self, path: Path) -> None:
        """Read the schema.

        Raises:
            UnreadableSource: the file is no Parquet file, or is damaged.
            EmptySource: it has no rows.
        """
        self._path = path
        # Brackets keep DuckDB from reading a name such as "a[1].parquet" as a pattern.
        self._name = re.sub(r"([*?\[])", r"[\1]", str(path))
        with self._connection() as connection:
            described = connection.execute(f"DESCRIBE FROM {_FILE}", [self._name]).fetchall()
            self._types = {str(column[0]): str(column[1]) for column in described}
            self._rows = _one(connection, f"SELECT count(*) FROM {_FILE}", self._name)
        if not self._rows:
            raise EmptySource(f"{path} has no rows")
        check_width(path, self._types)

    @property
    def columns(self) -> Sequence[str]:
        """The column names."""
        return list(self._types)

    def rows(self, wanted: Collection[str] | None = None) -> Iterator[dict[str, object] | BadRow]:
        """Each row as column → value; with `wanted`, of those columns alone.

        A row of more than `MAX_ROW` characters is bad; it is measured where it lies.
        """
        types = {
            name: kind for name, kind in self._types.items() if wanted is None or name in wanted
        }
        vectors = [name for name, kind in types.items() if _is_vector(name, kind)]
        plain = [name for name in types if name not in vectors]
        chosen = ", ".join(_expression(name, types[name]) for name in plain) or "NULL"
        texts = [_expression(n, types[n]) for n in plain if not _NUMBER.fullmatch(types[n])]
        size = " + ".join(["0::BIGINT", *(f"coalesce(strlen({text}), 0)" for text in texts)])
        with self._connection() as connection:
            beside = self._vectors(connection.cursor(), vectors)
            bounded = ", ".join(
                f"CASE WHEN size <= {MAX_ROW} THEN c{i} END" for i in range(max(len(plain), 1))
            )
            names = ", ".join(f"c{i}" for i in range(max(len(plain), 1)))
            query = (
                f"SELECT {bounded}, size FROM (SELECT {chosen}, {size} FROM {_FILE})"
                f" AS rows({names}, size)"
            )
            found = connection.execute(query, [self._name])
            while batch := found.fetchmany(_FETCH):
                for values, cells in zip(batch, beside, strict=False):
                    if values[-1] > MAX_ROW:
                        yield BadRow(too_long(values[-1]), "too-long")
                    else:
                        yield dict(zip(plain, values, strict=False)) | cells

    def count(self) -> int:
        """The number of rows according to the file's metadata."""
        return self._rows

    def _vectors(
        self, cursor: duckdb.DuckDBPyConnection, names: Sequence[str]
    ) -> Iterator[dict[str, object]]:
        """The vectors of each row, fetched as arrays: as Python floats they take eight times."""
        if not names:
            yield from repeat({})
        chosen = ", ".join(map(quoted, names))
        query = f"SELECT {chosen} FROM {_NUMBERED} WHERE file_row_number BETWEEN ? AND ?"
        cursor.execute(_SESSION)
        for start in range(0, self._rows, _BLOCK):
            block = cursor.execute(query, [self._name, start, start + _BLOCK - 1]).fetchnumpy()
            for cells in zip(*(_cells(column) for column in block.values()), strict=True):
                yield dict(zip(names, cells, strict=True))

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        import duckdb

        connection = duckdb.connect(config=dict(_CLOSED))
        try:
            connection.execute(_SESSION)
            yield connection
        except duckdb.Error as problem:
            reason = str(problem).partition("\n")[0].replace(self._name, str(self._path))
            raise UnreadableSource(f"{self._path} cannot be read as Parquet: {reason}") from problem
        finally:
            connection.close()


def _is_vector(name: str, kind: str) -> bool:
    return key_of(name) in map(key_of, EMBEDDINGS) and _VECTOR.fullmatch(kind) is not None


def _expression(name: str, kind: str) -> str:
    """SQL for a column that gives a Python scalar whatever its type."""
    column = quoted(name)
    if _PLAIN.fullmatch(kind):
        return column
    if kind == "BLOB":
        return f"try(decode({column}))"
    if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION")):
        return "NULL" if "BLOB" in kind else _as_json(column, kind)
    if kind.startswith("DECIMAL"):
        return f"CAST({column} AS {'DOUBLE' if _is_exact(kind) else 'VARCHAR'})"
    if kind.startswith("TIMESTAMP"):
        return f"replace(CAST({column} AS VARCHAR), ' ', 'T')"
    return f"CAST({column} AS VARCHAR)"


def _is_exact(decimal: str) -> bool:
    """Whether a float has all digits of a type such as DECIMAL(10,2)."""
    return int(re.findall(r"\d+", decimal)[0]) <= _FLOAT_DIGITS


def _as_json(column: str, kind: str) -> str:
    if kind.endswith("]"):  # a longer one, such as the vector of another model, is no attribute
        column = f"CASE WHEN len({column}) <= {_LONGEST_LIST} THEN {column} END"
    return f"CAST(to_json({column}) AS VARCHAR)"


def _cells(column: Iterable[object]) -> Iterator[object]:
    """The items of a fetched column; DuckDB marks a null as masked."""
    import numpy as np

    return (None if cell is np.ma.masked else cell for cell in column)


def _one(connection: duckdb.DuckDBPyConnection, query: str, *values: str) -> int:
    row = connection.execute(query, list(values)).fetchone()
    return int(row[0]) if row else 0
