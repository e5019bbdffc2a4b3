"""The syntax tree of a filter to SQL with bound values.

Each kind of node that is allowed has one method here; a node of any other kind, or with an
argument that its method does not read, is refused. The SQL is written anew: names come from the
catalogue's own list, values become parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp

from kinshelf.db.errors import FilterError
from kinshelf.db.filters.literals import (
    BOOLEAN,
    NULL,
    NUMBER,
    TEXT,
    kind_of,
    literal_value,
    shown,
    spelled,
    text_value,
)
from kinshelf.db.filters.names import Names, quoted
from kinshelf.db.filters.parser import too_deep
from kinshelf.db.filters.parts import Part, called, joined, listed
from kinshelf.db.filters.patterns import check_patterns
from kinshelf.db.text import compatible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kinshelf.db.product import Scalar

_SQL_TYPES = {TEXT: "VARCHAR", NUMBER: "DOUBLE", BOOLEAN: "BOOLEAN"}
_CASTS = {
    "TEXT": ("VARCHAR", TEXT), "INT": ("INTEGER", NUMBER), "BIGINT": ("BIGINT", NUMBER),
    "DOUBLE": ("DOUBLE", NUMBER), "REAL": ("DOUBLE", NUMBER), "BOOLEAN": ("BOOLEAN", BOOLEAN),
}  # fmt: skip
FUNCTIONS = {
    "abs": ((NUMBER,), NUMBER), "contains": ((TEXT, TEXT), BOOLEAN),
    "ends_with": ((TEXT, TEXT), BOOLEAN), "length": ((TEXT,), NUMBER),
    "lower": ((TEXT,), TEXT), "starts_with": ((TEXT, TEXT), BOOLEAN),
    "trim": ((TEXT,), TEXT), "upper": ((TEXT,), TEXT),
}  # fmt: skip
_FUNCTION_NAMES = sorted([*FUNCTIONS, "coalesce", "regexp_matches", "round"])
_SYMBOLS: dict[type[exp.Expr], str] = {
    exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
    exp.NullSafeEQ: "IS NOT DISTINCT FROM", exp.NullSafeNEQ: "IS DISTINCT FROM",
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%",
    exp.And: "AND", exp.Or: "OR", exp.Like: "LIKE", exp.ILike: "ILIKE",
}  # fmt: skip
_HELP = (
    "a filter knows AND OR NOT, = != < <= > >=, IS [NOT] NULL, IS [NOT] DISTINCT FROM, IN, "
    "BETWEEN, LIKE, ILIKE, UNDER, + - * / %, || and CAST"
)
_CONVERSIONS = {
    TEXT: "convert it with CAST(... AS VARCHAR)",
    NUMBER: "convert it with TRY_CAST(... AS DOUBLE)",
    BOOLEAN: "compare it with something, as in price < 20 or title IS NOT NULL",
}
_MAX_DIGITS = 15
_FOLDED = "(CASE WHEN strlen({1}) = length({1}) THEN {0} ELSE kin_nfkc({0}) END)"
"""A text in NFKC; one that is ASCII, of as many bytes as characters, costs no call."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A checked filter.

    `sql` is a boolean expression over the columns of a table called `p`, in brackets where it
    needs them, with a `?` for each of `parameters`, in order. `canonical` is the filter in one
    normal spelling (names as stored and quoted, every bracket written): filters that differ only
    in blanks, case, quotes or comments share it, and it can be compiled again. Within one
    generation of the catalogue `(canonical, parameters)` is a key to the filter's rows.
    """

    sql: str
    parameters: tuple[Scalar, ...]
    canonical: str


def compile_tree(
    tree: exp.Expr,
    columns: Mapping[str, str],
    attributes: Mapping[str, str],
    *,
    folds: bool = False,
) -> Filter:
    """Rebuild a tree as a `Filter`; FilterError if it holds anything that is not allowed."""
    compiler = Compiler(Names(columns, attributes))
    compiler.nfkc = folds
    try:
        part = compiler.compile(tree)
        if part.kind != BOOLEAN:
            raise _no_condition(tree, part)
    except RecursionError as error:
        raise too_deep() from error
    check_patterns(compiler.patterns)
    return Filter(part.sql, tuple(compiler.parameters), part.text)


class Compiler:
    """Compiles left to right, so that parameters are collected in the order of their `?`.

    An engine with another SQL overrides the methods whose SQL differs (see `cluster`).
    """

    types: Mapping[str, str] = _SQL_TYPES
    nfkc = False
    """Whether texts are compared in NFKC."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.parameters: list[Scalar] = []
        self.patterns: list[str] = []

    def compile(self, node: exp.Expr) -> Part:
        method = _METHODS.get(type(node))
        if method is None:
            raise FilterError(f"{shown(node)} is not allowed in a filter; {_HELP}")
        part: Part = getattr(self, method)(node)
        return part

    def compile_as(self, node: exp.Expr, kind: str) -> Part:
        """A part that must be of one kind, or NULL."""
        part = self.compile(node)
        if part.kind not in (kind, NULL):
            raise FilterError(
                f"{shown(node)} is {_named(part.kind)}, not {_named(kind)}; {_CONVERSIONS[kind]}"
            )
        return part

    def operand(self, node: exp.Expr, kind: str) -> Part:
        """An argument of an operator or function that is defined for one kind only."""
        part = self.compile_as(node, kind)
        if kind == TEXT and part.sql not in ("?", "NULL"):
            return part
        # A bare value or NULL needs a type to choose the function by; a number becomes a 64-bit
        # float, which does not overflow into an error as an integer does.
        return Part(kind, f"CAST({part.sql} AS {self.types[kind]})", part.text)

    def value(self, value: Scalar) -> Part:
        if value is None:
            return Part(NULL, "NULL", "NULL")
        self.parameters.append(compatible(value) if self.nfkc and type(value) is str else value)
        return Part(kind_of(value), "?", spelled(value))

    def literal(self, node: exp.Expr) -> Part:
        return self.value(literal_value(node))

    def column(self, node: exp.Expr) -> Part:
        identifier = node.this
        if not isinstance(identifier, exp.Identifier) or node.args.get("table"):
            raise FilterError(
                f"{shown(node)} is not allowed in a filter; write a column's name alone, in "
                'double quotes if a dot belongs to it: "a.b"'
            )
        _only(node, "this")
        name = self.names.find(identifier.this)
        sql = name.sql
        if self.nfkc and name.kind == TEXT:
            # Of an attribute its JSON is looked at, which takes less than to extract it twice.
            sql = _FOLDED.format(sql, "p.attributes::VARCHAR" if name.parameters else sql)
        self.parameters.extend(name.parameters * (sql.count(name.sql)))
        return Part(name.kind, sql, quoted(name.name))

    def brackets(self, node: exp.Expr) -> Part:
        _only(node, "this")
        return self.compile(node.this)

    def logic(self, node: exp.Expr) -> Part:
        parts = [self.compile_as(operand, BOOLEAN) for operand in _chain(node)]
        return joined(BOOLEAN, _SYMBOLS[type(node)], parts)

    def negation(self, node: exp.Expr) -> Part:
        _only(node, "this")
        part = self.compile_as(node.this, BOOLEAN)
        return Part(BOOLEAN, f"(NOT {part.sql})", f"(NOT {part.text})")

    def comparison(self, node: exp.Expr) -> Part:
        _only(node, "this", "expression")
        if _METHODS.get(type(node.this)) == "comparison":
            raise FilterError(f"{shown(node)} is a chain; join two comparisons with AND")
        parts = [self.compile(node.this), self.compile(node.expression)]
        _same_kind(node, parts)
        return joined(BOOLEAN, _SYMBOLS[type(node)], parts)

    def is_null(self, node: exp.Expr) -> Part:
        _only(node, "this", "expression")
        if not isinstance(node.expression, exp.Null):
            raise FilterError(
                f"{shown(node)} is not allowed in a filter; IS goes with [NOT] NULL and with "
                "[NOT] DISTINCT FROM, and a condition stands by itself: has_image, NOT has_image"
            )
        part = self.compile(node.this)
        return Part(BOOLEAN, f"({part.sql} IS NULL)", f"({part.text} IS NULL)")

    def between(self, node: exp.Expr) -> Part:
        _only(node, "this", "low", "high")
        parts = [self.compile(node.args[key]) for key in ("this", "low", "high")]
        _same_kind(node, parts)
        sql, text = (
            "({} BETWEEN {} AND {})".format(*(getattr(part, field) for part in parts))
            for field in ("sql", "text")
        )
        return Part(BOOLEAN, sql, text)

    def membership(self, node: exp.Expr) -> Part:
        _only(node, "this", "expressions")
        if not node.expressions:
            raise FilterError(f"{shown(node)}: IN needs values in brackets: IN ('a', 'b')")
        left = self.compile(node.this)
        values = [literal_value(item) for item in node.expressions]
        # Keyed with the type, because True == 1.
        distinct = {(type(value), value): value for value in values}
        parts = [self.value(value) for value in distinct.values()]
        _same_kind(node, [left, *parts])
        items = listed(parts)
        return Part(BOOLEAN, f"({left.sql} IN {items.sql})", f"({left.text} IN {items.text})")

    def likeness(self, node: exp.Expr) -> Part:
        _only(node, "this", "expression", "negate")
        negated = "NOT " if node.args.get("negate") else ""
        left = self.operand(node.this, TEXT)
        pattern = self.value(text_value(node, node.expression))
        return joined(BOOLEAN, f"{negated}{_SYMBOLS[type(node)]}", [left, pattern])

    def arithmetic(self, node: exp.Expr) -> Part:
        _only(node, "this", "expression")
        left, right = self.operand(node.this, NUMBER), self.operand(node.expression, NUMBER)
        symbol = _SYMBOLS[type(node)]
        # DuckDB fails the whole query on a zero divisor.
        divisor = f"nullif({right.sql}, 0)" if symbol in "/%" else right.sql
        sql = f"({left.sql} {symbol} {divisor})"
        return Part(NUMBER, sql, f"({left.text} {symbol} {right.text})")

    def minus(self, node: exp.Expr) -> Part:
        _only(node, "this")
        if isinstance(node.this, exp.Literal) and not node.this.is_string:
            return self.literal(node)
        part = self.operand(node.this, NUMBER)
        return Part(NUMBER, f"(- {part.sql})", f"(- {part.text})")

    def concatenation(self, node: exp.Expr) -> Part:
        _only(node, "this", "expression", "safe")
        operands = (node.this, node.expression)
        return joined(TEXT, "||", [self.operand(each, TEXT) for each in operands])

    def cast(self, node: exp.Expr) -> Part:
        _only(node, "this", "to", "safe", "_type")
        wanted = node.args["to"].sql(dialect="duckdb")
        if wanted not in _CASTS:
            raise FilterError(
                f"CAST to {wanted[:60]} is not allowed in a filter; "
                "cast to VARCHAR, INTEGER, BIGINT, DOUBLE or BOOLEAN"
            )
        sql_type, kind = _CASTS[wanted]
        part = self.compile(node.this)
        return Part(
            kind, f"TRY_CAST({part.sql} AS {sql_type})", f"TRY_CAST({part.text} AS {sql_type})"
        )

    def call(self, node: exp.Expr) -> Part:
        _only(node, "this", "expressions")
        name = str(node.name).lower()
        special = {"coalesce": self.coalesce, "regexp_matches": self.regexp, "round": self.round}
        if name in special:
            return special[name](node)
        if name not in FUNCTIONS:
            raise FilterError(
                f"{shown(node)} is not allowed in a filter; its functions are "
                + ", ".join(_FUNCTION_NAMES)
            )
        kinds, result = FUNCTIONS[name]
        arguments = _arguments(node, len(kinds))
        if name == "length":
            return self.length(arguments[0])
        parts = [self.operand(each, kind) for each, kind in zip(arguments, kinds, strict=True)]
        return called(result, name, parts)

    def length(self, node: exp.Expr) -> Part:
        nfkc, self.nfkc = self.nfkc, False  # as many characters as the product has
        part = self.operand(node, TEXT)
        self.nfkc = nfkc
        return called(NUMBER, "length", [part])

    def coalesce(self, node: exp.Expr) -> Part:
        parts = [self.compile(each) for each in _arguments(node)]
        return called(_same_kind(node, parts), "coalesce", parts)

    def round(self, node: exp.Expr) -> Part:
        arguments = _arguments(node, 1, 2)
        parts = [self.operand(arguments[0], NUMBER)]
        if len(arguments) == 2:
            parts.append(self.digits(arguments[1]))
        return called(NUMBER, "round", parts)

    def digits(self, node: exp.Expr) -> Part:
        digits = literal_value(node)
        if type(digits) is not int or abs(digits) > _MAX_DIGITS:
            raise FilterError(
                f"round to {shown(node)} digits: write a whole number from -15 to {_MAX_DIGITS}"
            )
        part = self.value(digits)
        return Part(NUMBER, f"CAST({part.sql} AS INTEGER)", part.text)

    def regexp(self, node: exp.Expr) -> Part:
        text, pattern = _arguments(node, 2)
        parts = [self.operand(text, TEXT), self.value(text_value(node, pattern))]
        self.patterns.append(str(self.parameters[-1]))
        return called(BOOLEAN, "regexp_matches", parts)


_METHODS: dict[type[exp.Expr], str] = {
    exp.Literal: "literal", exp.Boolean: "literal", exp.Null: "literal",
    exp.Column: "column", exp.Paren: "brackets", exp.Not: "negation",
    exp.And: "logic", exp.Or: "logic", exp.Is: "is_null",
    exp.Between: "between", exp.In: "membership", exp.Neg: "minus",
    exp.Like: "likeness", exp.ILike: "likeness",
    exp.DPipe: "concatenation", exp.Cast: "cast", exp.TryCast: "cast",
    exp.Anonymous: "call",
    **dict.fromkeys(
        (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ),
        "comparison",
    ),
    **dict.fromkeys((exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod), "arithmetic"),
}  # fmt: skip


def _only(node: exp.Expr, *keys: str) -> None:
    """Refuse a node with an argument that would be dropped, such as BETWEEN SYMMETRIC."""
    if any(value and key not in keys for key, value in node.args.items()):
        raise FilterError(f"{shown(node)} is not allowed in a filter; {_HELP}")


def _chain(node: exp.Expr) -> list[exp.Expr]:
    """The operands of a AND b AND c in order, without recursion."""
    kind, rest = type(node), []
    while type(node) is kind:
        _only(node, "this", "expression")
        rest.append(node.expression)
        node = node.this
    return [node, *reversed(rest)]


def _arguments(node: exp.Expr, *counts: int) -> Sequence[exp.Expr]:
    found: list[exp.Expr] = node.expressions
    if len(found) not in counts if counts else not found:
        wanted = " or ".join(map(str, counts)) or "1 or more"
        raise FilterError(f"{shown(node)} has {len(found)} arguments; it takes {wanted}")
    return found


def _same_kind(node: exp.Expr, parts: Iterable[Part]) -> str:
    """The one kind of all parts beside NULL; FilterError if they are of several."""
    kinds = list(dict.fromkeys(part.kind for part in parts if part.kind != NULL))
    if len(kinds) > 1:
        raise FilterError(
            f"{shown(node)} mixes {' with '.join(_named(kind) for kind in kinds)}; write text "
            "in 'single quotes' and numbers without, or convert with TRY_CAST(... AS DOUBLE)"
        )
    return kinds[0] if kinds else NULL


def _no_condition(node: exp.Expr, part: Part) -> FilterError:
    return FilterError(
        f"{shown(node)} is {_named(part.kind)}, not a condition; {_CONVERSIONS[BOOLEAN]}"
    )


def _named(kind: str) -> str:
    return {TEXT: "text", NUMBER: "a number", BOOLEAN: "a condition"}.get(kind, kind)
