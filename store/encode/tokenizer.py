"""CLIP's own tokenizer without transformers: from a model directory's files to token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import EncoderUnavailable
from kinshelf.store.encode.model_files import ADDED_TOKENS, TOKENIZER_SETTINGS, read_json
from kinshelf.store.encode.tokenizer_few import read_few

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

_CLASSES = ("CLIPTokenizer", "CLIPTokenizerFast")
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_SUFFIX = "</w>"
WHOLE = "tokenizer.json"
FEW = 4
"""Up to so many texts are tokenized without the library's tables while those are not there."""
_WORD = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


class Tokens:
    """Token ids as transformers' CLIPTokenizer gives them, cut at `limit` with the end kept.

    Raises EncoderUnavailable for a tokenizer of another kind.
    """

    def __init__(self, directory: Path, longest: int) -> None:
        settings = read_json(directory / TOKENIZER_SETTINGS[0])
        if settings.get("tokenizer_class") not in _CLASSES or (directory / ADDED_TOKENS).exists():
            raise EncoderUnavailable(f"its tokenizer is a {settings.get('tokenizer_class')}")
        self._whole: Tokenizer | None = None
        self._directory, self._settings = directory, settings
        declared = settings.get("added_tokens_decoder")
        self._few = read_few(directory / WHOLE, (_BEGIN, _END), declared, _steps())
        if self._few is None:
            self._whole = self._load()
        self.limit = min(longest, int(settings.get("model_max_length") or longest))

    def _load(self) -> Tokenizer:
        return _standard(_read(self._directory, self._settings))

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, start and end included, at most `limit` of them."""
        last = self.limit - 1
        return [ids if len(ids) <= last + 1 else [*ids[:last], ids[-1]] for ids in self._all(texts)]

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Count the texts with more than `limit` tokens, start and end included."""
        return sum(len(ids) > self.limit for ids in self._all(texts))

    def _all(self, texts: Sequence[str]) -> list[list[int]]:
        if self._whole is None:
            found = [self._few.ids(text) for text in texts[:FEW]] if self._few else []
            known = [ids for ids in found if ids is not None]
            if len(known) == len(texts):
                return known
            self._whole = self._load()
        return [encoding.ids for encoding in self._whole.encode_batch_fast(list(texts))]


def _read(directory: Path, settings: Mapping[str, Any]) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import BPE

    whole, declared = directory / WHOLE, settings.get("added_tokens_decoder")
    parts = [str(directory / name) for name in ("vocab.json", "merges.txt")]
    try:
        if whole.is_file():
            tokenizer = Tokenizer.from_file(str(whole))
            _check_added(tokenizer, declared)
            return tokenizer
        tokenizer = Tokenizer(BPE.from_file(*parts, end_of_word_suffix=_SUFFIX, unk_token=_END))
    except Exception as error:
        # The tokenizers library raises bare Exception.
        raise EncoderUnavailable(f"its tokenizer cannot be read ({error})") from error
    if declared:
        raise EncoderUnavailable("its special tokens are not those of CLIP")
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in (_BEGIN, _END)])
    return tokenizer


def _check_added(tokenizer: Tokenizer, declared: Mapping[str, Mapping[str, Any]] | None) -> None:
    """The special tokens must be CLIP's two, and be declared the same way in both files."""
    added = tokenizer.get_added_tokens_decoder()
    here = {i: (token.content, token.normalized) for i, token in added.items()}
    there = {int(i): (t["content"], t["normalized"]) for i, t in (declared or {}).items()}
    if sorted(content for content, _ in here.values()) != [_END, _BEGIN] or there not in ({}, here):
        raise ValueError("special tokens that are not CLIP's")


def _standard(tokenizer: Tokenizer) -> Tokenizer:
    """With CLIP's own steps around the vocabulary; transformers ignores the file's own too."""
    from tokenizers import processors

    model, begin, end = tokenizer.model, *map(tokenizer.token_to_id, (_BEGIN, _END))
    if getattr(model, "end_of_word_suffix", None) != _SUFFIX or begin is None or end is None:
        raise EncoderUnavailable("its vocabulary is not CLIP's kind")
    tokenizer.normalizer, tokenizer.pre_tokenizer = _steps()
    tokenizer.post_processor = processors.RobertaProcessing(
        (_END, end), (_BEGIN, begin), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _steps() -> tuple[Normalizer, PreTokenizer]:
    from tokenizers import Regex, normalizers, pre_tokenizers

    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    split = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return normalizer, split
