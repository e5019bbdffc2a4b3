"""The fingerprint of an encoder: equal fingerprints mean interchangeable embeddings.

It covers what decides an embedding and nothing else: the bytes of weights and tokenizer, the
settings of model, image processor and tokenizer, the precision class and the way of fusion. The
directory, the hub id and the version of a library that wrote a file do not count.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
from typing import TYPE_CHECKING, Any

import xxhash

from kinshelf.store.encode import model_files
from kinshelf.store.encode.image_processor import read_preprocessing

if TYPE_CHECKING:
    from pathlib import Path

FUSION = "halves-1"
"""Changes whenever `store/search/fusion.py` puts embeddings together another way."""

_UNDECIDING = frozenset(
    {
        *("transformers_version", "_name_or_path", "_commit_hash", "name_or_path", "is_local"),
        *("_attn_implementation_autoset", "architectures", "processor_class", "auto_map"),
        *("torch_dtype", "dtype", "local_files_only", "backend", "tokenizer_file"),
        *("initializer_factor", "initializer_range", "logit_scale_init_value"),
        *("dropout", "attention_dropout", "chat_template"),
    }
)
"""Settings that name where a file came from or matter in training only."""


def fingerprint(directory: Path, precision: str = "float32") -> str:
    """ "clip-" and 32 hex digits (xxh3_128) of a complete model directory.

    `precision` is the class of the arithmetic: embeddings of two classes never mix silently.
    Reads the weights once. Raises EncoderUnavailable for a damaged or missing file.
    """
    hasher = xxhash.xxh3_128()
    _add_text(hasher, "fusion", FUSION)
    _add_text(hasher, "precision", precision)
    _add_text(hasher, "model", _decided(model_files.read_json(directory / model_files.CONFIG)))
    preprocessing = dataclasses.asdict(read_preprocessing(directory))
    _add_text(hasher, "image processor", _decided(preprocessing))
    for name in model_files.TOKENIZER_SETTINGS:
        if (directory / name).is_file():
            _add_text(hasher, name, _decided(model_files.read_json(directory / name)))
    for path in model_files.tokenizer_files(directory) + model_files.weight_files(directory):
        _add_text(hasher, path.name, _file_digest(path))
    return f"clip-{hasher.hexdigest()}"


def _add_text(hasher: xxhash.xxh3_128, label: str, text: str) -> None:
    # Lengths keep neighbouring fields apart.
    for part in (label.encode(), text.encode()):
        hasher.update(len(part).to_bytes(8, "little") + part)


def _decided(settings: Any) -> str:
    return json.dumps(_without_undeciding(settings), sort_keys=True)


def _without_undeciding(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in _UNDECIDING}
        return {key: _without_undeciding(item) for key, item in kept.items()}
    return value


def _file_digest(path: Path) -> str:
    # Mapped, it is hashed where it lies in the page cache: several times as fast as reading it.
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return xxhash.xxh3_128(b"").hexdigest()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return xxhash.xxh3_128(data).hexdigest()
