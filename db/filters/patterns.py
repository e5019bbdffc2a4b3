"""Bounds on regular expressions, so that one filter cannot hold the database for hours.

RE2 runs in time proportional to text times pattern, and a counted repetition multiplies the
pattern: (.{1,30}){1,30} took 0.15 s on one text of 2,000 characters, which cannot be interrupted.
"""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING

from kinshelf.db.errors import FilterError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_COST = 1_000
"""Characters of all patterns in a filter, each pattern's times its counted repetitions."""

_REPETITION = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")


def check_patterns(patterns: Sequence[str]) -> None:
    """Raise FilterError for a pattern that RE2 rejects, or patterns too large together."""
    cost = sum(map(_cost, patterns))
    if cost > MAX_COST:
        raise FilterError(
            f"the patterns of regexp_matches come to {cost} steps for a character, counted "
            f"repetitions multiplied; at most {MAX_COST}: write + or * for {{n}}, or use LIKE"
        )
    for pattern in patterns:
        if problem := _problem(pattern):
            raise FilterError(
                f"regexp_matches cannot read the pattern '{pattern[:60]}': {problem}; "
                "it knows RE2's syntax, without look-around and back-references"
            )


def _cost(pattern: str) -> int:
    counts = (max(int(most or 0), int(least)) for least, most in _REPETITION.findall(pattern))
    return (len(pattern) + 1) * math.prod(max(count, 1) for count in counts)


@functools.lru_cache(maxsize=256)
def _problem(pattern: str) -> str | None:
    """DuckDB's error for a pattern; None if DuckDB accepts it."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        try:
            connection.execute("SELECT regexp_matches('', ?)", [pattern])
        except duckdb.Error as error:
            return str(error).partition("Error: ")[2] or str(error)
    return None
