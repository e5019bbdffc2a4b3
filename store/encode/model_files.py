"""A model directory: which files an encoder needs, and how they are read.

The layout is the one of transformers' `save_pretrained` and of the hub. Weights are read from
safetensors only: a pickle such as pytorch_model.bin runs code when it is loaded.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import EncoderUnavailable

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
)
"""Any one of these groups is a tokenizer."""
ADDED_TOKENS = "added_tokens.json"
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")

WANTED = (
    *(CONFIG, WEIGHTS, WEIGHTS_INDEX, "model-*-of-*.safetensors"),
    *(*PROCESSORS, ADDED_TOKENS, *TOKENIZER_SETTINGS),
    *(name for group in TOKENIZERS for name in group),
)
"""What is downloaded of a hub repository, as glob patterns; never a pickle, never code."""


def check_complete(directory: Path) -> None:
    """Raise EncoderUnavailable, naming the file, unless the directory can be loaded."""
    if not (directory / CONFIG).is_file():
        raise EncoderUnavailable(f"there is no {CONFIG}: a model directory holds one")
    for path in weight_files(directory):
        if not path.is_file():
            raise EncoderUnavailable(f"the shard {path.name} is missing: download it as well")
    if not any((directory / name).is_file() for name in PROCESSORS):
        message = f"there is no {PROCESSORS[1]}: without it pictures would be prepared wrongly"
        raise EncoderUnavailable(f"{message}; copy it from where the model came from")
    if not tokenizer_files(directory):
        message = "there is no tokenizer (tokenizer.json, or vocab.json with merges.txt)"
        raise EncoderUnavailable(f"{message}; copy it from where the model came from")


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The safetensors files, in name order; a shard that the index names may be absent.

    Raises EncoderUnavailable if there are none, or if the index is damaged.
    """
    if (directory / WEIGHTS).is_file():
        return (directory / WEIGHTS,)
    if not (directory / WEIGHTS_INDEX).is_file():
        raise EncoderUnavailable(_no_weights(directory))
    shards = read_json(directory / WEIGHTS_INDEX).get("weight_map")
    names = sorted(set(shards.values())) if isinstance(shards, dict) else []
    # A name of an index is untrusted: it must not lead out of the directory.
    if not names or not all(isinstance(name, str) and "/" not in name for name in names):
        raise EncoderUnavailable(f"{WEIGHTS_INDEX} is damaged: it names no files; download it anew")
    return tuple(directory / name for name in names)


def tokenizer_files(directory: Path) -> tuple[Path, ...]:
    """Every tokenizer file that is there, in a fixed order, settings not included; () if none."""
    whole = [g for g in TOKENIZERS if all((directory / name).is_file() for name in g)]
    names = [name for group in whole for name in group]
    if names and (directory / ADDED_TOKENS).is_file():
        names.append(ADDED_TOKENS)
    return tuple(directory / name for name in names)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises EncoderUnavailable if it is damaged or no object."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        message = f"{path.name} cannot be read ({str(error).splitlines()[0]}); download it anew"
        raise EncoderUnavailable(message) from error
    if not isinstance(value, dict):
        raise EncoderUnavailable(f"{path.name} is damaged: no JSON object; download it anew")
    return value


def _no_weights(directory: Path) -> str:
    pickles = [path.name for path in sorted(directory.glob("*.bin"))]
    found = f" ({pickles[0]} is not read: a pickle runs code when loaded)" if pickles else ""
    return (
        f"there is no {WEIGHTS}{found}; take the same model's safetensors, on the hub often a "
        "revision such as refs/pr/N, or convert it where you trust it"
    )
