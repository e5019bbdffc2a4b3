"""A filter's tree to Milvus' expression language, values quoted by us.

Milvus has two truth values: a comparison with a missing value is false, and so its NOT would be
true, where DuckDB's is unknown. So NOT is carried inwards until it meets a comparison, which has an
opposite. Only what compares one column or attribute with plain values is translated; all else is
Untranslatable.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from sqlglot import exp

from kinshelf.db.catalog.queries import FILTER_COLUMNS
from kinshelf.db.errors import FilterError
from kinshelf.db.filters.literals import BOOLEAN, literal_value
from kinshelf.db.filters.names import Name, Names
from kinshelf.db.text import compatible
from kinshelf.store.engines.conditions import Translated, Untranslatable, translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinshelf.db.filters.compiler import Filter
    from kinshelf.db.product import Scalar
    from kinshelf.store.engines.backend import Condition

_NOT_FIELDS = {"description", "category_source"}
"""What only the record has."""
_SYMBOLS: dict[type[exp.Expr], str] = {
    exp.EQ: "==", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
}  # fmt: skip
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")
"""What Milvus and Milvus Lite read differently within a quoted text."""


def to_milvus(where: Filter, attributes: dict[str, str], mixed: set[str]) -> Condition:
    """Attributes in `mixed` have values of several kinds, which DuckDB compares as texts."""
    teller = _Teller(Names(FILTER_COLUMNS, attributes), mixed)

    def say(condition: exp.Expr) -> Translated:
        return teller.tell(condition, holds=True), ()

    return translated(where, say, "and")


def quoted(value: Scalar) -> str:
    """A value as Milvus reads it. Raises Untranslatable."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        if _UNSAFE.search(value):
            raise Untranslatable
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if value is None:
        raise Untranslatable
    return json.dumps(value)


class _Teller:
    def __init__(self, names: Names, mixed: set[str]) -> None:
        self._names = names
        self._mixed = mixed

    def tell(self, node: exp.Expr, *, holds: bool) -> str:
        """The condition, or that it is false where `holds` is not set; unknown is neither."""
        if isinstance(node, exp.Paren):
            return self.tell(node.this, holds=holds)
        if isinstance(node, exp.Not):
            return self.tell(node.this, holds=not holds)
        if isinstance(node, exp.And | exp.Or):
            word = "and" if isinstance(node, exp.And) == holds else "or"
            sides = [self.tell(side, holds=holds) for side in (node.this, node.expression)]
            return f"({sides[0]} {word} {sides[1]})"
        return self._plain(node, holds=holds)

    def _plain(self, node: exp.Expr, *, holds: bool) -> str:
        if type(node) in _SYMBOLS:
            return self._comparison(node, holds=holds)
        method = _METHODS.get(type(node))
        if method is None:
            raise Untranslatable
        text: str = getattr(self, method)(node, holds=holds)
        return text

    def _flag(self, node: exp.Expr, *, holds: bool) -> str:
        name = self._name(node)
        if name.kind != BOOLEAN:
            raise Untranslatable
        return self._compared(name, "==", holds)

    def _same(self, node: exp.Expr, *, holds: bool) -> str:
        return self._distinct(node, same=holds)

    def _different(self, node: exp.Expr, *, holds: bool) -> str:
        return self._distinct(node, same=not holds)

    def _null(self, node: exp.Expr, *, holds: bool) -> str:
        return self._missing(self._name(node.this), missing=holds)

    def _call(self, node: exp.Expr, *, holds: bool) -> str:
        if str(node.name).lower() != "starts_with":
            raise Untranslatable
        column, beginning = node.expressions
        pattern = _plain_text(beginning)
        if "%" in pattern or "_" in pattern:
            raise Untranslatable
        return self._pattern(self._name(column), f"{pattern}%", holds=holds)

    def _name(self, node: exp.Expr) -> Name:
        if isinstance(node, exp.Paren):
            return self._name(node.this)
        if not isinstance(node, exp.Column):
            raise Untranslatable
        name = self._names.find(node.this.this)
        if name.name in _NOT_FIELDS or (name.parameters and name.name in self._mixed):
            raise Untranslatable
        return name

    def _compared(self, name: Name, symbol: str, value: Scalar) -> str:
        if name.name == "row" and type(value) is not int:
            raise Untranslatable
        if symbol not in ("==", "!=") and isinstance(value, str):
            value = compatible(value)
        text = f"{_field(name)} {symbol} {quoted(value)}"
        # a key that is not there is unequal to everything in some versions
        return f"({_there(name)} and {text})" if symbol == "!=" else text

    def _comparison(self, node: exp.Expr, *, holds: bool) -> str:
        symbol = _SYMBOLS[type(node)]
        left, right = node.this, node.expression
        if not isinstance(left, exp.Column):
            left, right, symbol = right, left, _TURNED.get(symbol, symbol)
        name, value = self._name(left), _value(right)
        return self._compared(name, symbol if holds else _OPPOSITE[symbol], value)

    def _distinct(self, node: exp.Expr, *, same: bool) -> str:
        name, value = self._name(node.this), _value(node.expression)
        if value is None:
            return self._missing(name, missing=same)
        if same:
            return self._compared(name, "==", value)
        return f"({self._missing(name, missing=True)} or {self._compared(name, '!=', value)})"

    def _missing(self, name: Name, *, missing: bool) -> str:
        if not missing:
            return _there(name)
        return f"(not {_there(name)})" if name.parameters else f"{name.name} is null"

    def _between(self, node: exp.Expr, *, holds: bool) -> str:
        name = self._name(node.this)
        low, high = _value(node.args["low"]), _value(node.args["high"])
        symbols, word = ((">=", "<="), "and") if holds else (("<", ">"), "or")
        sides = [self._compared(name, s, v) for s, v in zip(symbols, (low, high), strict=True)]
        return f"({sides[0]} {word} {sides[1]})"

    def _membership(self, node: exp.Expr, *, holds: bool) -> str:
        name = self._name(node.this)
        values = [literal_value(item) for item in node.expressions]
        if None in values:
            if not holds:
                raise Untranslatable  # never true, nor false
            values = [value for value in values if value is not None]
        if not values:
            raise Untranslatable
        if name.parameters:
            symbol, word = ("==", "or") if holds else ("!=", "and")
            return f"({f' {word} '.join(self._compared(name, symbol, v) for v in values)})"
        listed = _listed(values)
        if holds:
            return f"{name.name} in {listed}"
        return f"({_there(name)} and {name.name} not in {listed})"

    def _like(self, node: exp.Expr, *, holds: bool) -> str:
        holds = holds != bool(node.args.get("negate"))
        return self._pattern(self._name(node.this), _plain_text(node.expression), holds=holds)

    def _pattern(self, name: Name, pattern: str, *, holds: bool) -> str:
        if "\\" in pattern:
            raise Untranslatable  # it would make the next character an ordinary one
        # fields are in NFKC, but those that an earlier version wrote
        patterns = dict.fromkeys((compatible(pattern), pattern))
        like = " or ".join(f"{_field(name)} like {quoted(each)}" for each in patterns)
        return f"({like})" if holds else f"({_there(name)} and not ({like}))"


_METHODS: dict[type[exp.Expr], str] = {
    exp.Column: "_flag", exp.NullSafeEQ: "_same", exp.NullSafeNEQ: "_different",
    exp.Is: "_null", exp.Between: "_between", exp.In: "_membership", exp.Like: "_like",
    exp.Anonymous: "_call",
}  # fmt: skip


def _field(name: Name) -> str:
    return f"attributes[{quoted(name.name)}]" if name.parameters else name.name


def _there(name: Name) -> str:
    if name.parameters:
        return f"exists {_field(name)}"
    return f"{name.name} is not null"


def _listed(values: Sequence[Scalar]) -> str:
    return f"[{', '.join(quoted(value) for value in values)}]"


def _value(node: exp.Expr) -> Scalar:
    try:
        return literal_value(node.this if isinstance(node, exp.Paren) else node)
    except FilterError:
        raise Untranslatable from None


def _plain_text(node: exp.Expr) -> str:
    value = _value(node)
    if not isinstance(value, str):
        raise Untranslatable
    return value
