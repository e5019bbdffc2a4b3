"""The text of a filter to a syntax tree, within bounds of length and depth.

sqlglot's DuckDB parser reads one condition. The bounds are checked on the tokens first, because
the parser and all that walks its tree recurse.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar

from sqlglot import TokenType, exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.parsers.duckdb import DuckDBParser

from kinshelf.db.errors import FilterError
from kinshelf.db.text import LEVEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlglot import Token

MAX_CHARACTERS = 400_000
MAX_TOKENS = 30_000
MAX_TERMS = 4_000
MAX_DEPTH = 24

_ROUGH_TOKEN = re.compile(r"""'[^']*'?|"[^"]*"?|\d[\w.]*|\w+|\S""")
_LIST_TOKENS = frozenset({TokenType.STRING, TokenType.NUMBER, TokenType.COMMA})
_PREFIXES = frozenset({TokenType.NOT, TokenType.DASH, TokenType.PLUS})

_KEYWORDS = {
    "AND", "OR", "NOT", "IS", "NULL", "TRUE", "FALSE", "IN", "BETWEEN", "LIKE", "ILIKE",
    "DISTINCT", "FROM", "CAST", "TRY_CAST", "AS",
}  # fmt: skip
_UNDER = "UNDER"
_LEVELS = re.compile(r"\s*[|>]\s*")
_WORD = re.compile(r"[^\W\d]\w*")

_REFUSED = {
    TokenType.SEMICOLON: "a filter is one condition, without a semicolon",
    TokenType.SELECT: "a filter cannot hold a query; list the values instead: IN ('a', 'b')",
    TokenType.PARAMETER: "a filter has no parameters; write the value itself",
    TokenType.PLACEHOLDER: "a filter has no parameters; write the value itself",
    TokenType.COLON: "a filter has no parameters; write the value itself",
    TokenType.CASE: "a filter has no CASE; join conditions with AND and OR",
    TokenType.L_BRACKET: "a filter has no lists; list values in round brackets: IN ('a', 'b')",
    TokenType.L_BRACE: "a filter has no structs",
    TokenType.ARROW: "a filter has no -> ; an attribute is a column: write its name",
    TokenType.DARROW: "a filter has no ->> ; an attribute is a column: write its name",
}


class _Parser(DuckDBParser):
    """DuckDB's grammar without its functions: each call stays a plain name with arguments."""

    FUNCTIONS: ClassVar[dict[str, Any]] = {}
    NO_PAREN_FUNCTIONS: ClassVar[dict[TokenType, Any]] = {}
    NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {}
    FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
        name: DuckDBParser.FUNCTION_PARSERS[name] for name in ("CAST", "TRY_CAST")
    }


def parse(expression: str) -> exp.Expr:
    """The tree of one condition; FilterError if the text is not one or is out of bounds."""
    _check_text(expression)
    tokens = _tokenize(expression)
    if any(token.text.upper() == _UNDER for token in tokens):
        expression = _spelled_out(tokens, expression)
        tokens = _tokenize(expression)
    _check_tokens(tokens)
    _plain_words(tokens, expression)
    try:
        trees = _Parser(dialect=DuckDB()).parse_into(exp.Condition, tokens, expression)
    except ParseError as error:
        raise FilterError(f"the filter cannot be read{_place(error, expression)}") from error
    except RecursionError as error:
        raise too_deep() from error
    except (SqlglotError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise FilterError("the filter cannot be read; check its operators and brackets") from error
    if len(trees) != 1 or trees[0] is None:
        raise FilterError(_EMPTY)
    return trees[0]


_EMPTY = "the filter is empty; write a condition such as price < 20, or leave the filter out"


def too_deep() -> FilterError:
    """The error for a tree that is too deep to walk."""
    return FilterError(
        f"the filter is nested too deeply (at most {MAX_DEPTH} levels of brackets or of NOT); "
        "write long choices as IN (...)"
    )


def _check_text(expression: str) -> None:
    if not expression.strip():
        raise FilterError(_EMPTY)
    if len(expression) > MAX_CHARACTERS:
        raise FilterError(
            f"the filter has {len(expression)} characters; at most {MAX_CHARACTERS} are read"
        )
    if "\x00" in expression:
        raise FilterError(f"a NUL character at character {expression.index(chr(0)) + 1}; remove it")
    # Counted before the real tokenizer runs, which takes seconds for the longest texts.
    if len(_ROUGH_TOKEN.findall(expression)) > MAX_TOKENS:
        raise FilterError(f"the filter has too many parts; at most {MAX_TOKENS // 2} values fit")
    try:
        expression.encode()
    except UnicodeEncodeError as error:
        raise FilterError(f"no valid Unicode at character {error.start + 1}") from error


def _tokenize(expression: str) -> list[Token]:
    try:
        return DuckDB().tokenize(expression)
    except (SqlglotError, ValueError, TypeError, LookupError) as error:
        raise FilterError(
            "the filter cannot be read: a quote or a comment in it is not closed; "
            "inside a text write a single quote twice: 'it''s'"
        ) from error


def _spelled_out(tokens: Sequence[Token], expression: str) -> str:
    """`name [NOT] UNDER 'A > B'` as the category itself or what begins with it and a level more."""
    text, end = "", 0
    for i, token in enumerate(tokens):
        if not _is_under(token, expression):
            continue
        negated = i > 0 and tokens[i - 1].token_type is TokenType.NOT
        name = tokens[i - 1 - negated] if i > negated else None
        value = tokens[i + 1] if i + 1 < len(tokens) else None
        if name is None or value is None or value.token_type is not TokenType.STRING:
            place = f"character {token.start + 1}"
            raise FilterError(
                "UNDER stands between a column and a category in single quotes, as in"
                f" category UNDER 'Toys > Puzzles' ({place})"
            )
        column = expression[name.start : name.end + 1]
        path = LEVEL.join(filter(None, map(str.strip, _LEVELS.split(value.text))))
        path = path.replace("'", "''")
        text += f"{expression[end : name.start]}{'NOT ' * negated}"
        text += f"({column} = '{path}' OR starts_with({column}, '{path}{LEVEL}'))"
        end = value.end + 1
    return text + expression[end:]


def _is_under(token: Token, expression: str) -> bool:
    """Whether it is that word, in no quotes."""
    return expression[token.start : token.end + 1].upper() == _UNDER


def _check_tokens(tokens: Sequence[Token]) -> None:
    for token in tokens:
        if token.token_type in _REFUSED:
            place = f"`{token.text}` at character {token.start + 1}"
            raise FilterError(f"{_REFUSED[token.token_type]} ({place})")
    if _depth(tokens) > MAX_DEPTH:
        raise too_deep()
    if sum(token.token_type not in _LIST_TOKENS for token in tokens) > MAX_TERMS:
        raise FilterError(
            f"the filter has more than {MAX_TERMS} names and operators; "
            "write long choices as IN (...)"
        )


def _plain_words(tokens: Sequence[Token], expression: str) -> None:
    """Make every word that is no keyword of ours a mere name.

    To sqlglot, `row < 5` starts a type and `date 'x'` is a cast; here row and date are columns.
    """
    before = None
    for token, after in zip_longest(tokens, tokens[1:]):
        is_word = _WORD.fullmatch(token.text) and (
            token.text == expression[token.start : token.end + 1]
        )
        is_type = before in (TokenType.ALIAS, TokenType.DCOLON)
        before = token.token_type
        if is_word and not is_type and token.text.upper() not in _KEYWORDS:
            called = after is not None and after.token_type is TokenType.L_PAREN
            token.token_type = TokenType.VAR if called else TokenType.IDENTIFIER


def _depth(tokens: Sequence[Token]) -> int:
    """The most brackets open at once, each NOT or sign in a row counted as one."""
    deepest = brackets = prefixes = 0
    for token in tokens:
        brackets += (token.token_type is TokenType.L_PAREN) - (
            token.token_type is TokenType.R_PAREN
        )
        prefixes = prefixes + 1 if token.token_type in _PREFIXES else 0
        deepest = max(deepest, brackets + prefixes)
    return deepest


def _place(error: ParseError, expression: str) -> str:
    """The position at which the parser stopped, if it reports one that is in the text."""
    known = error.errors[0] if error.errors else {}
    if known.get("highlight", "") not in expression:
        return ": it ends where a value is expected"
    if not known.get("highlight"):
        return "; check its operators and brackets"
    return f" at `{known['highlight']}` (line {known['line']}, up to character {known['col']})"
