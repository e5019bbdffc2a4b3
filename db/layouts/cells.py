"""What stands in a cell of a shop's file: lists, paths of categories, pictures, markup."""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import PurePosixPath
from typing import Any

_LONGEST_LIST = 100_000
_BETWEEN_URLS = re.compile(r"[|;,~\s]+(?=https?://|//)|\s*\|\s*")
_URL = re.compile(r"(?:https?:)?//[^\s\"'<>|{}\[\]]+", re.I)
_WITHIN = re.compile(r"https?:\\?/\\?/", re.I)
"""An address in other text, such as `![alt](URL)`, `=IMAGE("URL")` or `alt text: URL`."""
_WIDTH = re.compile(r"\s+\d+(?:\.\d+)?[wx]$")
"""What follows an address in a `srcset`."""
_BETWEEN_TEXTS = re.compile(r"(?<=['\"])\s+(?=['\"])")
"""Where NumPy, which writes no commas, has them in a list of texts."""
_ADDRESSES = ("src", "hi_res", "original", "large", "full", "url", "href", "link", "image",
              "medium", "path", "file", "thumb")  # fmt: skip
"""What an object that stands for a picture may call its address, the best one first."""
_NO_PICTURE = frozenset({"", "null", "none", "nan", "n/a", "na", "#n/a", "undefined", "\\n",
                         "-"})  # fmt: skip
_LEVELS = re.compile(r"\s*(?:>>|>|\||»|(?<=\s)/(?=\s))\s*")
_MARKUP = re.compile(r"</?(?:[a-z][a-z0-9]*)(?:\s[^<>]*)?/?>|<!--", re.I)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});", re.I)
_BLOCKS = frozenset(
    {"p", "br", "div", "ul", "ol", "li", "dl", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6", "hr",
     "table", "tr", "td", "th", "section", "article", "address", "blockquote"}
)  # fmt: skip
_UNSEEN = frozenset({"script", "style", "template", "noscript", "iframe"})
PICTURE_NAME = re.compile(r"\.(?:jpe?g|png|webp|gif|avif|heic)\s*$", re.I)
_PLACEHOLDER = "transparent-pixel"


def members_of(text: str) -> list[Any] | None:
    """The members of a list that is written as JSON or as Python does; None for other text."""
    text = text.strip()
    if text[:1] != "[" or text[-1:] != "]" or len(text) > _LONGEST_LIST:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list) else None
    return None


def pictures_of(value: object) -> list[str]:
    """The pictures that a cell names, in order, each once; placeholders are left out.

    A cell is one path or URL, a list of them as JSON, Python, NumPy or PostgreSQL writes it, an
    object with an address in it, or several in a row with "|", ";", ",", "~" or white space
    between. A URL is never changed, though it may be cut out of what cannot be read.
    """
    found = dict.fromkeys(_pictures(value))
    return [part for part in found if _PLACEHOLDER not in part]


def _pictures(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        value = _addresses(value)
    if isinstance(value, list | tuple):
        for member in value:
            yield from _pictures(member)
        return
    text = str(value).strip() if value is not None else ""
    found = _parsed(text) if text[:1] in {"[", "{", "(", '"', "'"} else text
    if not isinstance(found, str) or found != text:
        yield from _pictures(found)
    elif text.casefold() not in _NO_PICTURE:
        yield from filter(None, (part.strip(" ,;") for part in _apart(text)))


def _apart(text: str) -> list[str]:
    """What stands in a row in one text."""
    if text[:8].casefold().startswith(("http://", "https://", "//")):
        parts = [part.partition(" ! ")[0] for part in _BETWEEN_URLS.split(text)]
        return [_WIDTH.sub("", part) for part in parts]
    text = html.unescape(text) if text.startswith("&lt;") else text
    if (text[0] in "[{(<\"'" or _WITHIN.search(text)) and (
        urls := _URL.findall(text.replace("\\/", "/"))
    ):
        parts = [part for url in urls for part in _BETWEEN_URLS.split(url)]
        return [part if "(" in part else part.rstrip(",;)") for part in parts]
    for mark in "|;,":
        if mark in text and all(map(PICTURE_NAME.search, text.strip(mark + " ").split(mark))):
            return text.split(mark)
    if "\n" in text and all(map(PICTURE_NAME.search, text.split())):
        return text.split()
    return [text]


def _addresses(picture: dict[Any, Any]) -> object:
    """The address in an object, the best of several sizes; else whatever looks like one."""
    known = {str(name).casefold(): member for name, member in picture.items()}
    named = next((known[name] for name in _ADDRESSES if known.get(name)), None)
    if named is not None:
        return named
    every = [each for each in (*picture, *picture.values()) if isinstance(each, str)]
    return [each for each in every if _URL.match(each) or PICTURE_NAME.search(each)]


def _parsed(text: str) -> Any:
    """What a cell says that is written as JSON or as Python does; other text as it is."""
    if len(text) > _LONGEST_LIST:
        return text
    plain = _BETWEEN_TEXTS.sub(", ", text)
    in_order = f"[{plain[1:-1]}]" if text[0] == "{" else plain  # a set has none
    for read, written in ((json.loads, text), (ast.literal_eval, in_order),
                          (ast.literal_eval, text)):  # fmt: skip
        try:
            return read(written)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    return text


def first_price(text: str) -> str:
    """The price of the first of a list of variants, as JSON."""
    variants = members_of(text) or []
    prices = (v.get("price") for v in variants if isinstance(v, dict))
    return next((str(price) for price in prices if price not in (None, "")), "")


def path_of(text: str) -> str:
    """A category path with " | " between its levels, of a list or of "A > B > C"."""
    members = members_of(text)
    if members is None:
        levels = _LEVELS.split(text)
    elif len(members) == 1:
        levels = _LEVELS.split(str(members[0]))
    else:
        levels = [str(member) for member in members]
    return " | ".join(level for level in map(str.strip, levels) if level)


def first_path(text: str) -> str:
    """The path of the first of several categories with commas between them."""
    return path_of(re.split(r"\s*,\s*", text.strip())[0])


def tag_path(text: str) -> str:
    """The last of several categories with commas between them, from the wide to the narrow."""
    return text.strip().rpartition(",")[2].strip().removeprefix("en:")


def stem(text: str) -> str:
    """A file's name without folder and suffix."""
    return PurePosixPath(text.strip().replace("\\", "/")).stem


def ten_digits(text: str) -> str:
    """A number with the leading zeros that a spreadsheet took from it."""
    return text.strip().zfill(10) if text.strip().isdecimal() else text


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in _UNSEEN
        if tag in _BLOCKS:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in _UNSEEN))
        if tag in _BLOCKS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)


def is_markup(text: str) -> bool:
    """Whether HTML stands in a text."""
    return "<" in text and _MARKUP.search(text) is not None


def plain_text(text: str) -> str:
    """A text as a person reads it: without HTML, scripts and entities."""
    if not is_markup(text):
        return unescaped(text)
    parser = _Text()
    parser.feed(text)
    parser.close()
    return " ".join("".join(parser.parts).split())


def unescaped(text: str) -> str:
    """A text with its entities as the characters that they stand for."""
    return html.unescape(text) if "&" in text and _ENTITY.search(text) else text
