"""Which column is which field: by the user's mapping, by name, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches

from kinshelf.db.errors import InputError, UnknownColumn
from kinshelf.db.layouts.names import ALIASES, EMBEDDINGS, TEXT, attribute_name, key_of
from kinshelf.db.text import clean_key

_CONTENT = ("title", "description", "text", "image", *EMBEDDINGS)
_LISTED = 40


def without(bound: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """What of a layout's binding stands beside the user's own."""
    taken = bound.values()
    return {
        name: column
        for name, column in known.items()
        if name not in bound and column not in taken and _wanted(name, bound)
    }


def mapped(name: str, column: str, columns: Sequence[str]) -> str:
    """The column that a mapping names, whatever its case. Raises UnknownColumn, InputError."""
    if name not in ALIASES:
        raise InputError(
            f"there is no field {name!r} to map to{_near(name, ALIASES)}; "
            f"the fields are {', '.join(ALIASES)}"
        )
    if column in columns:
        return column
    same = [other for other in columns if key_of(other) == key_of(column)]
    if len(same) != 1:
        raise UnknownColumn(
            f"--map {name}={column!r}: there is no such column{_near(column, columns)}; "
            f"the columns are {_listing(columns)}"
        )
    return same[0]


def bind(columns: Sequence[str], bound: Mapping[str, str]) -> dict[str, str]:
    """`bound`, and for every other field the first column whose name means it."""
    fields = dict(bound)
    taken = set(bound.values())
    by_key: dict[str, str] = {}
    for column in columns:
        if column not in taken:
            by_key.setdefault(key_of(column), column)
    for name, aliases in ALIASES.items():
        alias = next((key for key in aliases if key in by_key), None)
        if name not in fields and alias is not None and _wanted(name, fields):
            fields[name] = by_key.pop(alias)
    return fields


def _wanted(name: str, fields: Mapping[str, str]) -> bool:
    """Whether `name` may still be found: `text` and the pair it stands for exclude each other."""
    if name == TEXT:
        return "title" not in fields and "description" not in fields
    return TEXT not in fields or name not in {"title", "description"}


def attribute_names(columns: Sequence[str], fields: Mapping[str, str]) -> dict[str, str]:
    """The attribute that each column becomes that is no field's."""
    taken = set(fields.values())
    return {column: attribute_name(column) for column in columns if column not in taken}


def check_enough(
    columns: Sequence[str],
    fields: Mapping[str, str],
    content: bool,
    guess: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None,
) -> None:
    """Raises UnknownColumn where no column is the id or, with `content`, anything to be encoded.

    `guess` gives a column for the fields that have none, which the message proposes.
    """
    if "id" not in fields:
        hint = _hint({"id": columns[0] if columns else "Column"}, fields, guess)
        raise UnknownColumn(
            f"no column is the id; the columns are {_listing(columns)}: {hint} "
            "(a file without a header needs one)"
        )
    if content and not any(name in fields for name in _CONTENT):
        hint = _hint({"title": columns[-1]}, fields, guess)
        raise UnknownColumn(
            f"no column is a title, description or image; the columns are {_listing(columns)}: "
            f"{hint}"
        )


def _hint(
    example: Mapping[str, str],
    fields: Mapping[str, str],
    guess: Callable[[Mapping[str, str]], Mapping[str, str]] | None,
) -> str:
    found = guess(fields) if guess else {}
    if found:
        return f"map the file's own names for them, by what stands in them {map_line(found)}"
    return f"map the file's own name for it, for example {map_line(example)}"


def map_line(mapping: Mapping[str, str]) -> str:
    """The options to type for a mapping.

    >>> map_line({"id": "Article", "image": "Photo"})
    '--map id="Article" --map image="Photo"'
    """
    return " ".join(f'--map {name}="{column}"' for name, column in mapping.items())


def _near(name: str, names: Iterable[str]) -> str:
    by_key = {key_of(other): other for other in names}
    near = get_close_matches(key_of(name), by_key, n=3)
    return f" (near: {', '.join(by_key[key] for key in near)})" if near else ""


def _listing(columns: Sequence[str]) -> str:
    shown = ", ".join(map(clean_key, columns[:_LISTED]))
    rest = len(columns) - _LISTED
    return f"{shown} and {rest} more" if rest > 0 else shown
