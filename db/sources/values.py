"""Conversion of a source's cell: to text, a scalar attribute or an embedding."""

from __future__ import annotations

import ast
import json
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.layouts.names import attribute_name
from kinshelf.db.text import clean, clean_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kinshelf.db.product import Scalar

_LONGEST_LIST = 100_000
_SHORT = 40
_NUMBER_STARTS = frozenset("-0123456789")
_WORDS: dict[str, bool | None] = {"": None, "True": True, "False": False}
_NUMBER = re.compile(r"(?P<whole>0|-?[1-9]\d{0,17})|-?(?:0|[1-9]\d*)\.\d+(?:e[+-]\d+)?", re.A)
_OPENS, _CLOSES = frozenset("[{("), frozenset("]})")
_NAMES = ("value", "name", "@value", "#text", "label", "title")
_LANGUAGE = re.compile(r"[a-z]{2}(?:[-_][A-Za-z]{2,4})?")
_OPENING, _CLOSING = frozenset("[{"), frozenset("]}")
_LARGEST = 10**18
"""A whole number from here on is a code rather than an amount, and databases would round it."""


def text_of(value: object) -> str:
    """`value` as the text of a field, before normalising: "" for None and NaN.

    A whole float loses its ".0": tools that know no missing integer write the id 7 as 7.0.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return _float_text(value)
    return scalar_text(value)


def first_member(text: str) -> str:
    """The first or main member where a cell holds a list or an object, as JSON or as Python writes
    it.

    Of values by language (`[{"language_tag": "en_US", "value": "Mug"}]`, `{"en": "Mug"}`) an
    English one is taken before others, of an object its name. Other text comes back as it is.
    """
    if text[:1] not in _OPENS or text[-1:] not in _CLOSES or len(text) > _LONGEST_LIST:
        return text
    try:
        members = json.loads(text)
    except RecursionError:
        return text
    except ValueError:
        try:
            members = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return text
    if isinstance(members, tuple) and not all(isinstance(m, str) for m in members):
        return text
    found = _mains_of(members)
    if not found:
        return text if members else ""
    # A list in the list: what is stored must read back as itself.
    return first_member(text_of(found[0]))


def _mains_of(members: object) -> list[Any]:
    """The members to take of a list or an object, the best one first."""
    if isinstance(members, dict):
        return _main_of(members)
    if not isinstance(members, list | tuple):
        return []
    named = [m for m in members if isinstance(m, dict) and "value" in m]
    english = [m for m in named if str(m.get("language_tag", "")).startswith("en")]
    plain = [m for m in members if isinstance(m, str | int | float) and m != ""]
    objects = [each for m in members if isinstance(m, dict) for each in _main_of(m)]
    lists = [m for m in members if isinstance(m, list) and m]
    return [m["value"] for m in english + named] or plain or objects or lists


def _main_of(members: Mapping[Any, Any]) -> list[Any]:
    """The name that an object has, or its text in English or the first language; none else."""
    found = [members[name] for name in _NAMES if isinstance(members.get(name), str)]
    if members and all(isinstance(name, str) and _LANGUAGE.fullmatch(name) for name in members):
        spoken = sorted(members, key=lambda name: not name.startswith("en"))  # stable
        found += [members[name] for name in spoken if isinstance(members[name], str)]
    return [member for member in found if member]


def scalar_text(value: object) -> str:
    """A value that is no text as text: JSON for lists and objects."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def typed(value: object) -> Scalar:
    """A cell of a text format as int, float, bool or text; None where it is empty.

    It is a number only where writing that gives the same text: "007", "+5", "1.10" and a number
    of more than 18 digits stay text, and so does every word but "True" and "False", which
    Python, pandas and `export` write.
    """
    text = value if isinstance(value, str) else scalar_text(value)
    return _typed_again(text) if len(text) <= _SHORT else _typed(text)


def _typed(cell: str) -> Scalar:
    text = _cell(cell)
    if text[:1] not in _NUMBER_STARTS:
        return _WORDS.get(text, text) if len(text) <= 5 else text
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    if number["whole"]:
        return int(text)
    amount = float(text)
    return amount if repr(amount) == text else text


_typed_again = lru_cache(2**14)(_typed)
"""Most cells of a wide file are short, and come again and again."""


def scalar(value: object) -> Scalar:
    """A value of a typed format as an attribute; None where it is missing.

    NaN counts as missing, a whole number of more than 18 digits becomes text, and so do lists and
    objects, as JSON.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_LARGEST < value < _LARGEST else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else _float_text(value) or None
    if isinstance(value, str):
        return _cell(value) or None
    return _cell(scalar_text(value))


def _cell(text: str) -> str:
    """A text as an attribute; blanks and letters within the strings of JSON stay."""
    stripped = text.strip()
    is_json = stripped[:1] in _OPENING and stripped[-1:] in _CLOSING and _is_json(stripped)
    return clean_key(text) if is_json else clean(text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def unfold(value: object) -> dict[str, Scalar] | None:
    """The attributes in an object, parsed or as JSON text; None where the cell holds no object."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, dict):
        return None
    return scalars({str(name): member for name, member in value.items() if str(name).strip()})


def scalars(members: Mapping[str, object]) -> dict[str, Scalar]:
    """Attributes as they are kept: by `attribute_name`, without those that have no value."""
    found = {attribute_name(name): scalar(member) for name, member in members.items()}
    return {name: member for name, member in found.items() if member is not None}


def embedding_of(value: object) -> NDArray[np.float32] | None:
    """A cell as a float32 vector (d,): a list of numbers, an array, or a JSON list as text.

    None where the cell is empty.

    Raises:
        ValueError: the cell holds something else.
    """
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else None
    if value is None:
        return None
    try:
        vector = np.asarray(value)
    except ValueError:
        vector = np.empty(0)
    if vector.ndim != 1 or not vector.size or vector.dtype.kind not in "fiu":
        raise ValueError("it is not a list of numbers")
    if np.ma.isMaskedArray(value):
        raise ValueError("it has missing numbers in it")
    with np.errstate(over="ignore"):
        return vector.astype(np.float32)


def _float_text(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() else str(value)
