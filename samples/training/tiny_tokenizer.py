"""A tokenizer like CLIP's, byte-level BPE with an end-of-word mark, but of a small vocabulary."""

from __future__ import annotations

import json

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

START, END = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"
WORD = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
"""CLIP's own pattern for what counts as a word."""


def train_tokenizer(captions: list[str], merges: int) -> Tokenizer:
    """Learn at most `merges` merges; the vocabulary is CLIP's: bytes, ending bytes, merges, marks.

    Every byte has a token, alone and at the end of a word, so that any text can be encoded.
    """
    learner = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX))
    _prepare(learner)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=2 * len(alphabet) + merges,
        initial_alphabet=alphabet,
        end_of_word_suffix=SUFFIX,
        min_frequency=2,
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    learnt = [(a, b) for a, b in json.loads(learner.to_str())["model"]["merges"]][:merges]
    tokens = [*alphabet, *(letter + SUFFIX for letter in alphabet), *(a + b for a, b in learnt)]
    vocabulary = {token: at for at, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    return _finished(vocabulary, learnt)


def _finished(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix=SUFFIX, unk_token=END))
    _prepare(tokenizer)
    tokenizer.add_special_tokens([START, END])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]),
        (START, vocabulary[START]),
        trim_offsets=False,
        add_prefix_space=False,
    )
    return tokenizer


def _prepare(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
