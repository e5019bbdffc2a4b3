"""Few texts are tokenized without the tokenizers library's tables; transformers is the oracle."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from clip_models import TEXTS, TOKENIZER
from hypothesis import given, settings
from hypothesis import strategies as st

from kinshelf.store.encode import canary
from kinshelf.store.encode.tokenizer import FEW, Tokens

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "tiny-clip"
DIRECTORIES = [SAMPLE] + [TOKENIZER] * TOKENIZER.is_dir()
_CACHE: dict[Path, tuple[Tokens, Any]] = {}


def both(directory: Path) -> tuple[Tokens, Any]:
    """Ours, and transformers' tokenizer of the same files."""
    from transformers import CLIPTokenizer

    if directory not in _CACHE:
        _CACHE[directory] = Tokens(directory, 77), CLIPTokenizer.from_pretrained(directory)
    return _CACHE[directory]


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
@settings(max_examples=150)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_short_text_has_the_tokens_that_transformers_gives_it(
    directory: Path, text: str
) -> None:
    ours, theirs = both(directory)
    assert ours.ids([text]) == [theirs(text, truncation=True, max_length=77)["input_ids"]]


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_odd_texts_have_the_tokens_that_transformers_gives_them(directory: Path, text: str) -> None:
    ours, (_, theirs) = Tokens(directory, 77), both(directory)
    assert ours.ids([text]) == [theirs(text, truncation=True, max_length=77)["input_ids"]]


def test_the_librarys_tables_are_built_only_for_many_texts_and_special_ones() -> None:
    for texts, built in ((["a train"] * FEW, False), (["a train"] * (FEW + 1), True),
                         (["<|endoftext|>"], True), (["x" * 5000], True)):  # fmt: skip
        tokens = Tokens(SAMPLE, 77)
        tokens.ids(texts)
        assert (tokens._whole is not None) == built


@pytest.mark.parametrize("change", [{"dropout": 0.1}, {"ignore_merges": True}], ids=str)
def test_another_kind_of_model_is_left_to_the_library(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    shutil.copytree(SAMPLE, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    whole = json.loads(path.read_text("utf-8"))
    whole["model"] |= change
    path.write_text(json.dumps(whole), "utf-8")
    assert Tokens(tmp_path / "model", 77)._whole is not None


def test_versions_are_those_that_importlib_metadata_tells() -> None:
    found = dict(each.rsplit(" ", 1) for each in canary.libraries().split(", "))
    assert found == {name: importlib.metadata.version(name) for name in found}
