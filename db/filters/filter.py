"""A user's filter, such as `category = 'Puzzles' AND price < 20`, made safe for the catalogue.

The text is parsed, checked against a list of what is allowed, and rebuilt from the tree with
every value bound; nothing of the user's text reaches the database.

What may be written:

    conditions  AND OR NOT ( ) = != <> < <= > >= IS [NOT] NULL, IS [NOT] DISTINCT FROM,
                [NOT] IN (values), [NOT] BETWEEN, [NOT] LIKE and [NOT] ILIKE 'pattern',
                category [NOT] UNDER 'Toys > Puzzles': it or what stands under it
    values      'text', numbers, TRUE, FALSE, NULL
    operators   + - * / % on numbers, || on text
    functions   abs, coalesce, contains, ends_with, length, lower, regexp_matches, round,
                starts_with, trim, upper, CAST and TRY_CAST to VARCHAR, INTEGER, BIGINT, DOUBLE,
                BOOLEAN
    names       columns and attributes, in any case; "in double quotes" where they hold spaces

The meaning is DuckDB's, three-valued logic included, with three exceptions that keep one odd row
from failing the whole query: arithmetic is in 64-bit floats; x / 0 and x % 0 are NULL; a value
that cannot be converted is NULL (CAST means TRY_CAST).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kinshelf.db.filters.compiler import Filter


def compile_where(
    expression: str,
    columns: Mapping[str, str],
    attributes: Mapping[str, str],
    *,
    folds: bool = False,
) -> Filter:
    """Check one boolean expression and rebuild it as a `Filter`.

    `columns` are the columns of the table and `attributes` the keys of its JSON column
    `attributes`; each name maps to "text", "number" or "boolean". A name is taken as written
    first, then regardless of case; a column goes before an attribute. With `folds` texts are
    compared in NFKC, so that "10²" is found as "102" too: the database must know `kin_nfkc`.

    Raises FilterError, and nothing else, for whatever the text holds. Time is linear in the
    length of the text, which is bounded, and so is the time that the filter takes for a row.
    """
    from kinshelf.db.filters.compiler import compile_tree
    from kinshelf.db.filters.parser import parse

    return compile_tree(parse(expression), columns, attributes, folds=folds)
