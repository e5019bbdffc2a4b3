"""Byte-pair merges in plain Python for a query's few words.

The tokenizers library takes 0.2 s to build its tables from a tokenizer.json; here the same file is
only parsed, and what is not plain is left to the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

from kinshelf.store.encode.model_files import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

    Steps = tuple[Normalizer, PreTokenizer]
    Declared = Mapping[str, Mapping[str, Any]]

LONGEST_TEXT = 2_000
"""Characters; merging costs the square of a word's length."""
_PLAIN = {
    **{"type": "BPE", "dropout": None, "continuing_subword_prefix": "", "byte_fallback": False},
    **{"ignore_merges": False, "end_of_word_suffix": "</w>"},
}
"""Settings of the only kind of model that is merged here; left out or null, they are the same."""


class FewTokens:
    """Token ids of short texts; `steps` are what a text goes through before its merges.

    Raises KeyError, TypeError or ValueError for a model that is not CLIP's kind.
    """

    def __init__(self, model: Mapping[str, Any], specials: tuple[str, str], steps: Steps) -> None:
        if any((model.get(key) or value) != value for key, value in _PLAIN.items()):
            raise ValueError("not a plain byte-pair model")
        self._vocabulary: Mapping[str, int] = model["vocab"]
        self._begin, self._end = (self._vocabulary[name] for name in specials)
        merges: list[Any] = model["merges"]
        # Older files write a merge as "a b", newer ones as two strings.
        old = bool(merges) and isinstance(merges[0], str)
        pairs: Iterable[str] = merges if old else map(" ".join, merges)
        self._ranks = dict(zip(pairs, count(), strict=False))
        self._normalizer, self._splitter = steps

    def ids(self, text: str) -> list[int] | None:
        """Ids with start and end; None for a long text and for one that may hold specials."""
        if len(text) > LONGEST_TEXT or "<|" in text:
            return None
        found: list[int | None] = [self._begin]
        for word, _ in self._splitter.pre_tokenize_str(self._normalizer.normalize_str(text)):
            parts = self._merged([*word[:-1], f"{word[-1]}</w>"])
            found += [self._vocabulary.get(part) for part in parts]
        known = [token for token in found if token is not None]
        return [*known, self._end] if len(known) == len(found) else None

    def _merged(self, parts: list[str]) -> list[str]:
        """The merge of the lowest rank first, of equal ones the leftmost."""
        while len(parts) > 1:
            pairs = enumerate(pairwise(parts))
            ranks = ((self._ranks.get(f"{a} {b}"), place) for place, (a, b) in pairs)
            known = [(rank, place) for rank, place in ranks if rank is not None]
            if not known:
                break
            place = min(known)[1]
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        return parts


def read_few(
    path: Path, specials: tuple[str, str], declared: Declared | None, steps: Steps
) -> FewTokens | None:
    """From a tokenizer.json; None if it is not there or not plainly CLIP's.

    `specials` are start and end; `declared` is tokenizer_config.json's added_tokens_decoder.
    """
    if not path.is_file():
        return None
    whole = read_json(path)
    try:
        model = whole["model"]
        added = _names({str(token["id"]): token for token in whole["added_tokens"]})
        ours = {model["vocab"][name]: name for name in specials}
        if {i: name for i, (name, _) in added.items()} != ours:
            return None
        return FewTokens(model, specials, steps) if _names(declared or {}) in ({}, added) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _names(tokens: Declared) -> dict[int, tuple[str, bool]]:
    return {int(i): (token["content"], token["normalized"]) for i, token in tokens.items()}
