"""Which encoding the bytes of a text file are in, by evidence.

UTF-8 and UTF-16 prove themselves. Of the older ones each is tried on the lines that are not ASCII,
and judged by what comes out: kana and common characters for Shift-JIS, EUC-JP and GBK, accented
letters within Latin words and single signs for Windows-1252.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Callable, Iterable

from kinshelf.db.errors import InputError

UTF_8 = "utf-8"
_SAMPLE = 64 * 2**10
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: UTF_8,
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_WIDER = {"shift_jis": "cp932", "gb2312": "gb18030", "gbk": "gb18030", "ascii": UTF_8}
"""What Windows writes under these names, and reads all that they have."""
_LIKELY = 0.6
"""What an encoding must come to, of 1, to be taken; real files come to 0.8 and more."""
_CERTAIN = 0.9
"""What it must come to where the file may as well be damaged UTF-8."""
_DAMAGE = 20
"""Of so many characters that are UTF-8 to each byte that is not, the file is damaged UTF-8."""
_LETTERS = frozenset("àáâãäåæçèéêëìíîïñòóôõöøùúûüýßœšžÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝŒŠŽ")
_SIGNS = frozenset(
    bytes((0x80, 0x85, *range(0x91, 0x98), 0x99, *range(0xA0, 0xC0), 0xD7, 0xF7)).decode("cp1252")
)
"""The euro, quotation marks, dashes, fractions and such."""
_HIGH_RUN = re.compile(r"[^\x00-\x7f]+")
_HIGH_BYTES = re.compile(rb"[\x80-\xff]")
_UTF_8_CHARACTER = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)

_LONG_CHARACTER = re.compile(rb"[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def checked(name: str) -> str:
    """A user's name of an encoding as Python's. Raises InputError."""
    try:
        found = codecs.lookup(name)
        if not getattr(found, "_is_text_encoding", True):
            raise LookupError
    except (LookupError, ValueError):
        raise InputError(
            f"there is no encoding {name!r}: utf-8, utf-16, cp1252, shift_jis and gbk are some"
        ) from None
    return _WIDER.get(found.name, found.name)


def shown(name: str) -> str:
    """The usual name of an encoding, which `checked` takes."""
    return {"cp932": "shift_jis", "gb18030": "gbk"}.get(name, name)


def detect(chunks: Iterable[bytes]) -> str | None:
    """The encoding of a text file, given as its bytes in order; None where nothing fits.

    All of it is read, since one byte far down may tell UTF-8 from the others.
    """
    chunks = iter(chunks)
    head = next(chunks, b"")
    for bom, name in _BOMS.items():
        if head.startswith(bom):
            return name
    if b"\0" in head:
        return _without_bom(head)
    odd = _OddLines()
    if odd.is_utf_8(head, chunks):
        return UTF_8
    return _likeliest(odd.sample)


class _OddLines:
    """Reads bytes as UTF-8 and keeps some of the lines that are not ASCII."""

    def __init__(self) -> None:
        self.sample = b""

    def is_utf_8(self, head: bytes, chunks: Iterable[bytes]) -> bool:
        decoder = codecs.getincrementaldecoder(UTF_8)()
        valid = True
        for chunk in itertools.chain([head], chunks):
            if not chunk.isascii():
                self._keep(chunk)
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                valid = False
            if not valid and len(self.sample) >= _SAMPLE:
                break
        return valid

    def _keep(self, chunk: bytes) -> None:
        if len(self.sample) < _SAMPLE:
            lines = [line for line in chunk.splitlines() if not line.isascii()]
            self.sample = b"\n".join([self.sample, *lines])[:_SAMPLE]


def _without_bom(head: bytes) -> str | None:
    """UTF-16 by where its zeros stand: beside the commas, digits and line ends of any script."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    name = "utf-16-le" if odd > even else "utf-16-be"
    try:
        text = head[: len(head) // 2 * 2].decode(name, "strict")
    except UnicodeDecodeError as problem:
        if problem.start < len(head) - 4:
            return None
        text = head[: problem.start].decode(name)
    printable = sum(mark.isprintable() or mark.isspace() for mark in text)
    lines = "\n" in text or "\r" in text
    return name if lines and "\0" not in text and printable > 0.95 * len(text) else None


def _likeliest(sample: bytes) -> str | None:
    marks = len(_UTF_8_CHARACTER.findall(sample))
    rest = len(_HIGH_BYTES.findall(_UTF_8_CHARACTER.sub(b"", sample)))
    if marks > _DAMAGE * rest:
        return None
    # Of three bytes and more few come about by chance in another encoding.
    long, beside = len(_LONG_CHARACTER.findall(sample)), _LONG_CHARACTER.sub(b"", sample)
    broken = 2 * long > len(_HIGH_BYTES.findall(beside))
    scores = {name: _score(sample, name, judge) for name, judge in _JUDGES.items()}
    best = max(scores, key=lambda name: scores[name])
    if best == "cp1252" and 2 * marks > rest:
        return None  # no word has both letters of "Ã¼": a file of two encodings
    return best if scores[best] >= (_CERTAIN if broken else _LIKELY) else None


def _score(sample: bytes, name: str, judge: Callable[[str], float]) -> float:
    """How likely the text is, from 0 to 1, each stretch that is not ASCII by its length."""
    # The sample's end may cut a character.
    text = sample.decode(name, "replace" if len(sample) >= _SAMPLE else "ignore")
    if len(sample) < _SAMPLE and not _decodes(sample, name):
        return 0.0
    if text.count("\ufffd") > 2:
        return 0.0
    runs = _HIGH_RUN.findall(text)
    total = sum(map(len, runs))
    return sum(judge(run) * len(run) for run in runs) / total if total else 0.0


def _decodes(sample: bytes, name: str) -> bool:
    try:
        sample.decode(name)
    except UnicodeDecodeError:
        return False
    return True


def _latin(run: str) -> float:
    good = sum(mark in _LETTERS or mark in _SIGNS for mark in run) / len(run)
    return good if len(run) == 1 else 0.9 * good if len(run) == 2 else 0.1 * good


def _japanese(run: str) -> float:
    return sum(map(_japanese_mark, run)) / len(run)


def _japanese_mark(mark: str) -> float:
    if "\u3000" <= mark <= "\u30ff" or "\uff01" <= mark <= "\uff5e":
        return 1.0
    if "\uff61" <= mark <= "\uff9f":  # half-width kana
        return 0.65
    data = mark.encode("cp932", "replace")
    common = b"\x88\x9f" <= data <= b"\x98\x72"
    return 1.0 if common else 0.3 if data < b"\xeb" else 0.2 if len(data) == 2 else 0.0


def _chinese(run: str) -> float:
    return sum(map(_chinese_mark, run)) / len(run)


def _chinese_mark(mark: str) -> float:
    data = mark.encode("gb18030", "replace")
    if len(data) != 2 or data[1] < 0xA1:
        return 0.1
    return 1.0 if 0xA1 <= data[0] <= 0xA3 or 0xB0 <= data[0] <= 0xD7 else 0.3


def _japanese_of_unix(run: str) -> float:
    """EUC-JP, which has the kana where GBK has them: only with kana does it differ from Chinese."""
    kana = any("\u3041" <= mark <= "\u30ff" for mark in run)
    return (0.95 if kana else 0.5) * sum(map(_japanese_mark, run)) / len(run)


_JUDGES: dict[str, Callable[[str], float]] = {
    "cp1252": _latin, "cp932": _japanese, "gb18030": _chinese,
    "euc_jp": _japanese_of_unix,
}  # fmt: skip
