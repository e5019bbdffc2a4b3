"""A filter's tree to PostgreSQL's SQL with bound values.

Only where PostgreSQL means the same as DuckDB: what differs (regular expressions, casts, rounding,
remainders) is Untranslatable. Texts are compared by their bytes, as in DuckDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from kinshelf.db.catalog.queries import FILTER_COLUMNS
from kinshelf.db.filters.compiler import FUNCTIONS, Compiler
from kinshelf.db.filters.literals import BOOLEAN, NULL, NUMBER, TEXT, kind_of, text_value
from kinshelf.db.filters.names import Names
from kinshelf.db.filters.parts import Part
from kinshelf.db.text import compatible
from kinshelf.store.engines.conditions import Translated, Untranslatable, translated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kinshelf.db.filters.compiler import Filter
    from kinshelf.db.product import Scalar
    from kinshelf.store.engines.backend import Condition

_SPACES = " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"  # noqa: E501
_CALLS = {
    "abs": "abs({})", "contains": "(strpos({}, {}) > 0)", "ends_with": "kin_ends_with({}, {})",
    "length": "length({})", "lower": "kin_lower({})", "starts_with": "starts_with({}, {})",
    "trim": f"btrim({{}}, '{_SPACES}')", "upper": "kin_upper({})",
}  # fmt: skip
_ATTRIBUTES = {
    TEXT: '((p.attributes ->> ?::text) COLLATE "C")',
    NUMBER: "(CASE json_typeof(p.attributes -> ?::text) WHEN 'number'"
    " THEN (p.attributes ->> ?::text)::double precision END)",
    BOOLEAN: "(CASE json_typeof(p.attributes -> ?::text) WHEN 'boolean'"
    " THEN (p.attributes ->> ?::text)::boolean END)",
}


def to_postgres(
    where: Filter, attributes: dict[str, str], *, folds: bool, normalizes: bool = False
) -> Condition:
    """`folds`: the server has a collation that knows upper and lower case beyond ASCII;
    `normalizes`: the shelf has `kin_nfkc`, in which texts are compared."""
    names = Names(FILTER_COLUMNS, attributes)

    def say(condition: exp.Expr) -> Translated:
        compiler = _Compiler(names)
        compiler.folds, compiler.nfkc = folds, normalizes
        part = compiler.compile(condition)
        return part.sql, tuple(compiler.parameters)

    return translated(where, say, "AND")


class _Compiler(Compiler):
    """See `Compiler`; parameters are `?` here too."""

    types: Mapping[str, str] = {TEXT: "text", NUMBER: "double precision", BOOLEAN: "boolean"}
    folds = False

    def value(self, value: Scalar) -> Part:
        if value is None:
            return Part(NULL, "NULL", "")
        self.parameters.append(compatible(value) if self.nfkc and type(value) is str else value)
        kind = kind_of(value)
        # numeric, so that a whole number beyond 2^53 is compared with a row as it is
        name = "numeric" if isinstance(value, int) and kind == NUMBER else self.types[kind]
        return Part(kind, f"?::{name}", "")

    def column(self, node: exp.Expr) -> Part:
        name = self.names.find(node.this.this)
        sql = _ATTRIBUTES[name.kind] if name.parameters else name.sql
        if self.nfkc and name.kind == TEXT:
            sql = f"kin_nfkc({sql})"
        if not name.parameters:
            return Part(name.kind, sql, "")
        self.parameters += [name.name] * sql.count("?")
        return Part(name.kind, sql, "")

    def likeness(self, node: exp.Expr) -> Part:
        left = self.operand(node.this, TEXT)
        pattern = self.value(text_value(node, node.expression)).sql
        sql = left.sql
        if isinstance(node, exp.ILike):
            if not self.folds:
                raise Untranslatable
            sql, pattern = f"kin_lower({sql})", f"kin_lower({pattern})"
        negated = "NOT " if node.args.get("negate") else ""
        return Part(BOOLEAN, f"({sql} {negated}LIKE {pattern} ESCAPE '')", "")

    def arithmetic(self, node: exp.Expr) -> Part:
        if isinstance(node, exp.Mod):
            raise Untranslatable
        return super().arithmetic(node)

    def cast(self, node: exp.Expr) -> Part:
        raise Untranslatable

    def call(self, node: exp.Expr) -> Part:
        name = str(node.name).lower()
        if name == "coalesce":
            return self.coalesce(node)
        if name not in _CALLS or (name in ("lower", "upper") and not self.folds):
            raise Untranslatable
        kinds, kind = FUNCTIONS[name]
        if name == "length":
            nfkc, self.nfkc = self.nfkc, False  # as many characters as the product has
            sql = _CALLS[name].format(self.operand(node.expressions[0], TEXT).sql)
            self.nfkc = nfkc
            return Part(kind, sql, "")
        parts = [self.operand(e, k) for e, k in zip(node.expressions, kinds, strict=True)]
        return Part(kind, _CALLS[name].format(*(part.sql for part in parts)), "")
