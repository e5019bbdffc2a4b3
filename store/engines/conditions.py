"""A checked filter in an engine's language, as far as the engine can say it.

The filter's own tree is walked again, never its text. Of conditions joined by AND, those that the
engine cannot say are left out; the rows that come back are then too many, and the caller asks
DuckDB about these few (see `cluster.engine_view`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from unicodedata import normalize

from sqlglot import exp

from kinshelf.db.filters.parser import parse
from kinshelf.store.engines.backend import Condition

if TYPE_CHECKING:
    from kinshelf.db.filters.compiler import Filter
    from kinshelf.db.product import Scalar

Translated = tuple[str, tuple["Scalar", ...]]


class Untranslatable(Exception):
    """The engine's language has no words for this that mean the same."""


def translated(where: Filter, say: Callable[[exp.Expr], Translated], word: str) -> Condition:
    """`say` gives the text and the parameters of one condition, or raises Untranslatable; `word` is
    the language's AND."""
    texts: list[str] = []
    parameters: list[Scalar] = []
    exact = True
    for condition in _joined_by_and(parse(where.canonical).transform(_any_spelling)):
        try:
            text, values = say(condition)
        except Untranslatable:
            exact = False
            continue
        texts.append(text)
        parameters += values
    return Condition(f" {word} ".join(texts), tuple(parameters), exact)


def _any_spelling(node: exp.Expr) -> exp.Expr:
    """Where a text beyond ASCII is asked for, also its NFC and NFKC: Milvus compares as it is
    written, and its fields are in NFKC from this version on, in NFC before."""
    if isinstance(node, exp.EQ | exp.NEQ) and _is_beyond_ascii(node.expression):
        chosen = exp.In(this=node.this, expressions=_spellings(node.expression))
        return exp.Not(this=exp.Paren(this=chosen)) if isinstance(node, exp.NEQ) else chosen
    if isinstance(node, exp.In):
        values = [value for each in node.expressions for value in _spellings(each)]
        return exp.In(this=node.this, expressions=values)
    return node


def _is_beyond_ascii(node: exp.Expr) -> bool:
    return isinstance(node, exp.Literal) and node.is_string and not str(node.this).isascii()


def _spellings(node: exp.Expr) -> list[exp.Expr]:
    if not _is_beyond_ascii(node):
        return [node]
    text = str(node.this)
    spellings = dict.fromkeys((text, normalize("NFC", text), normalize("NFKC", text)))
    return [exp.Literal.string(spelling) for spelling in spellings]


def _joined_by_and(node: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(node, exp.Paren):
        yield from _joined_by_and(node.this)
    elif isinstance(node, exp.And):
        yield from _joined_by_and(node.this)
        yield from _joined_by_and(node.expression)
    else:
        yield node
