"""Literals in the tree of a filter: their values, their kinds, and how they are written.

The kinds are "text", "number" and "boolean", as for columns; NULL is of none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sqlglot import exp
from sqlglot.errors import ErrorLevel

from kinshelf.db.errors import FilterError

if TYPE_CHECKING:
    from kinshelf.db.product import Scalar

TEXT, NUMBER, BOOLEAN, NULL = "text", "number", "boolean", "NULL"

_MAX_INTEGER = 2**63 - 1


def shown(node: exp.Expr) -> str:
    """The node as the user would write it, shortened, for a message."""
    copy = node.copy()
    for name in copy.find_all(exp.Identifier):
        name.set("quoted", not str(name.this).isidentifier())
    text = copy.sql(dialect="duckdb", unsupported_level=ErrorLevel.IGNORE, comments=False)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def kind_of(value: Scalar) -> str:
    """The kind of a value that is not NULL."""
    if isinstance(value, bool):
        return BOOLEAN
    return TEXT if isinstance(value, str) else NUMBER


def spelled(value: Scalar) -> str:
    """A value as a literal."""
    if isinstance(value, bool):
        return str(value).upper()
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def literal_value(node: exp.Expr) -> Scalar:
    """The value of a literal, signed numbers included."""
    if isinstance(node, exp.Null):
        return None
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    negative = isinstance(node, exp.Neg)
    literal = node.this if negative else node
    if not isinstance(literal, exp.Literal) or (negative and literal.is_string):
        raise FilterError(f"{shown(node)} must be a plain value, such as 'red' or 20")
    if literal.is_string:
        return str(literal.this)
    return _number(str(literal.this), -1 if negative else 1)


def _number(text: str, sign: int) -> int | float:
    try:
        value = float(text)
    except ValueError as error:
        raise FilterError(f"`{text[:60]}` is not a number that can be read") from error
    if math.isinf(value):
        raise FilterError(f"the number {text[:30]} is too large; the largest is about 1.8e308")
    whole = text.isdecimal() and len(text) < 20 and int(text) <= _MAX_INTEGER
    return sign * (int(text) if whole else value)


def text_value(node: exp.Expr, pattern: exp.Expr) -> str:
    """The pattern of a node such as LIKE, which must be a text."""
    value = literal_value(pattern) if isinstance(pattern, exp.Literal) else None
    if not isinstance(value, str):
        raise FilterError(f"the pattern in {shown(node)} must be a text, such as '%dog%'")
    return value
