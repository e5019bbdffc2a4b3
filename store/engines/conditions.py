"""A checked filter in an engine's language, as far as the engine can say it.

The filter's own tree is walked again, never its text. Of conditions joined by AND, those that the
engine cannot say are left out; the rows that come back are then too many, and the caller asks
DuckDB about these few (see `cluster.engine_view`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

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
    for condition in _joined_by_and(parse(where.canonical)):
        try:
            text, values = say(condition)
        except Untranslatable:
            exact = False
            continue
        texts.append(text)
        parameters += values
    return Condition(f" {word} ".join(texts), tuple(parameters), exact)


def _joined_by_and(node: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(node, exp.Paren):
        yield from _joined_by_and(node.this)
    elif isinstance(node, exp.And):
        yield from _joined_by_and(node.this)
        yield from _joined_by_and(node.expression)
    else:
        yield node
