"""Which encoding the bytes of a text file are in, by evidence.

UTF-8 and UTF-16 prove themselves. Of the older ones each is tried on the lines that are not ASCII,
and judged by what comes out: kana and common characters for Shift-JIS, EUC-JP and GBK, Hangul for
EUC-KR, accented letters within Latin words and single signs for Windows-1252, Mac Roman and the
encodings of Central Europe.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections import Counter
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
_WIDER = {"shift_jis": "cp932", "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949",
          "ascii": UTF_8}  # fmt: skip
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
_MIDDLE = frozenset("áâăäąčćçďéěęëíîĺľłňńóôőöŕřšśşťúůűüýžźżßÁÂĂÄĄČĆÇĎÉĚĘËÍÎĹĽŁŇŃÓÔŐÖŔŘŠŚŞŤÚŮŰÜÝŽŹŻ")
"""The letters of Central Europe, but those that Turkish and Icelandic have in their place."""
_ODD_LATIN = re.compile(
    "(?<![0-9])[¹²³¼½¾£¯±¶§¥ªº¢¤¦¬\xb8¨](?=[a-zà-ÿ])"  # a sign that begins a word
    "|(?<=[A-Za-zà-ÿ])[¿¡¹³¶¯£•](?=[a-zà-ÿ])"  # or stands within one
    "|(?<=[a-zà-ÿ])[ŠŒŽŸÀ-ÖØ-Þ]"  # a capital behind a small letter
)
"""What Latin text does not have: where it is frequent, the encoding is another."""
_NEVER_TOGETHER: dict[str, list[tuple[str, ...]]] = {
    "cp1252": [("šžý", "øìùèòï"), ("õ", "öü", "áéíóú")],
    "cp1250": [("ąęłńśźż", "řěůčš")],
    "iso8859_2": [("ąęłńśźż", "řěůčš")],
    "cp1254": [("ğışĞİŞ", "áéíóúæ")],
    "mac_roman": [],
}
"""The encodings of Latin text, and groups of letters of which no language has all in them."""
_ICELANDIC, _TURKISH = "áéíóúæ", "ýþðÝÞÐ"
"""Icelandic has both, Turkish the latter alone: where it has ış and ğ in its own encoding."""
_TURKISH_LETTERS = frozenset("çğıöşüâîûÇĞİÖŞÜÂÎÛ")
_HANGUL = frozenset(
    "이가스트리기지자아사나은대용고라인도어로마시다한수일전장보주여성남블랙화의정유세상무원신하동해그드비미제티카레"
    "치플러케크색형소프니터오에모부공선방바우타구양안내팩컵코브디네패션개입순면천연"
)
"""Syllables that are frequent in Korean."""
_FEW, _FREQUENT = 12, 0.35
"""Of fewer Hangul so many must be frequent: each is a common character of GBK too."""
_LOW = 0.1
"""Of the second bytes of Big5 so many are ASCII, and of GBK hardly any."""
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
    return {"cp932": "shift_jis", "gb18030": "gbk", "cp949": "euc_kr"}.get(name, name)


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
    if scores["cp1252"] >= _LIKELY or 5 * marks > rest:
        scores |= dict.fromkeys(_OTHER_LATIN, 0.0)
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
    if not _may_be(name, text, runs):
        return 0.0
    return sum(judge(run) * len(run) for run in runs) / total if total else 0.0


def _may_be(name: str, text: str, runs: list[str]) -> bool:
    """Whether nothing in the whole of a text speaks against an encoding."""
    if name in _NEVER_TOGETHER:
        return not _is_odd(text, runs, name)
    if name == "big5":
        seconds = [mark.encode(name, "replace")[-1] for run in runs for mark in run]
        return sum(second < 0x80 for second in seconds) >= _LOW * len(seconds)
    return name != "cp949" or _is_korean(runs)


def _decodes(sample: bytes, name: str) -> bool:
    try:
        sample.decode(name)
    except UnicodeDecodeError:
        return False
    return True


def _latin(run: str) -> float:
    good = sum(mark in _LETTERS or mark in _SIGNS for mark in run) / len(run)
    return good if len(run) == 1 else 0.9 * good if len(run) == 2 else 0.1 * good


def _central(run: str) -> float:
    good = sum(mark in _MIDDLE or mark in _SIGNS for mark in run) / len(run)
    return good if len(run) <= 2 else 0.9 * good if len(run) == 3 else 0.1 * good


def _turkish(run: str) -> float:
    good = sum(mark in _TURKISH_LETTERS or mark in _SIGNS for mark in run) / len(run)
    return good if len(run) <= 2 else 0.1 * good


def _is_odd(text: str, runs: list[str], name: str) -> bool:
    """Whether letters and signs stand as they do in no language of this encoding."""
    marks = Counter(itertools.chain.from_iterable(runs))

    def count(letters: Iterable[str]) -> int:
        return sum(marks[letter] for letter in letters)

    mixed = sum(min(map(count, groups)) for groups in _NEVER_TOGETHER[name])
    if name == "cp1252" and not count(_ICELANDIC):
        mixed += count(_TURKISH)
    return len(_ODD_LATIN.findall(text)) + mixed > 0.05 * len(runs)


def _korean(run: str) -> float:
    """Slightly above GBK, which has a common character wherever EUC-KR has Hangul."""
    return 1.01 * sum("가" <= m <= "힣" or "\u3000" <= m <= "\u3020" for m in run) / len(run)


def _is_korean(runs: list[str]) -> bool:
    """Whether Hangul are many, or frequent ones: by chance Chinese has some."""
    marks = "".join(runs)
    return len(marks) >= _FEW or sum(m in _HANGUL for m in marks) >= _FREQUENT * len(marks)


def _traditional(run: str) -> float:
    return sum(map(_traditional_mark, run)) / len(run)


def _traditional_mark(mark: str) -> float:
    lead = mark.encode("big5", "replace")[0]
    return 1.0 if 0xA1 <= lead <= 0xC6 else 0.3


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
    "euc_jp": _japanese_of_unix, "cp949": _korean,
    "big5": _traditional, "mac_roman": _latin, "cp1250": _central, "iso8859_2": _central,
    "cp1254": _turkish,
}  # fmt: skip
_OTHER_LATIN = ("mac_roman", "cp1250", "iso8859_2", "cp1254")
