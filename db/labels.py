"""Spellings of one category: "Home &amp; Kitchen", "home and kitchen" and "Home & Kitchen"."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping

_AND = re.compile(r"\s*(?:&|\+|\band\b|\bund\b|\bet\b|\by\b)\s*")
_MARKS = re.compile(r"[\s_/,.'\u2019\u00b7-]+")


def label_key(label: str) -> str:
    """What spellings of one category share: without case, entities, marks, and how "and" is said.

    >>> label_key("Home &amp; Kitchen | Mugs") == label_key("home  and kitchen|mugs")
    True
    """
    text = unicodedata.normalize("NFKC", html.unescape(html.unescape(label))).casefold()
    levels = (_MARKS.sub(" ", _AND.sub(" & ", level)).strip() for level in text.split("|"))
    return "|".join(level for level in levels if level)


def spellings(counts: Mapping[str | None, int]) -> dict[str, str]:
    """For each category that is another's spelling the usual one: the most frequent of them.

    `counts` are products by category. Of equally frequent ones the one without entities.

    >>> spellings({"Mugs & Cups": 9, "Mugs &amp; Cups": 2, "Bowls": 4})
    {'Mugs &amp; Cups': 'Mugs & Cups'}
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        if label:
            alike[label_key(label)].append(label)
    found: dict[str, str] = {}
    for labels in alike.values():
        usual = max(labels, key=lambda name: (counts[name], html.unescape(name) == name))
        found |= {label: usual for label in labels if label != usual}
    return found
