"""A CLIP's weights as float32 arrays over its own safetensors files, mapped, not read.

Any size of CLIP whose two towers are those of transformers' CLIPModel; its tensor names and its
defaults for settings that config.json leaves out are the ones used here.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import EncoderUnavailable
from kinshelf.store.encode import model_files

if TYPE_CHECKING:
    from pathlib import Path

Linear = tuple[FloatArray, FloatArray]
"""Weight (out, in) and bias (out,)."""

ACTIVATIONS = ("quick_gelu", "gelu")
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_SHARED = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_TEXT = _SHARED | {
    **{"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8},
    **{"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407},
}
_VISION = _SHARED | {
    **{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    **{"image_size": 224, "patch_size": 32, "num_channels": 3},
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer block; `norm1` and `norm2` are scale and shift, (width,) each."""

    norm1: Linear
    q: Linear
    k: Linear
    v: Linear
    out: Linear
    norm2: Linear
    fc1: Linear
    fc2: Linear


@dataclass(frozen=True, slots=True)
class Tower:
    """The blocks of one modality; `projection` is (dimension, width)."""

    layers: tuple[Layer, ...]
    heads: int
    activation: str
    eps: float
    positions: FloatArray
    final_norm: Linear
    projection: FloatArray


@dataclass(frozen=True, slots=True)
class ClipWeights:
    """Both towers. `patches` is (width, 3, patch, patch), `tokens` (vocabulary, width).

    A text is pooled at the first token `eos`, or, if that is None, at its largest token id.
    """

    vision: Tower
    text: Tower
    patches: FloatArray
    class_embedding: FloatArray
    pre_norm: Linear
    image_size: int
    tokens: FloatArray
    eos: int | None

    @property
    def dimension(self) -> int:
        """Projection size of one modality."""
        return len(self.text.projection)

    def parameters(self) -> tuple[int, int]:
        """Numbers in the linear layers of the vision and of the text tower."""
        return _linear_size(self.vision), _linear_size(self.text)


def _linear_size(tower: Tower) -> int:
    linears = ("q", "k", "v", "out", "fc1", "fc2")
    return sum(getattr(layer, name)[0].size for layer in tower.layers for name in linears)


def read_weights(directory: Path) -> ClipWeights:
    """The weights of a model directory. Raises EncoderUnavailable unless it is a plain CLIP."""
    config = model_files.read_json(directory / model_files.CONFIG)
    try:
        return _assemble(config, dict(_tensors(directory)))
    except (KeyError, TypeError, ValueError, OSError, AttributeError) as error:
        raise EncoderUnavailable(f"it is no plain CLIP ({error})") from error


def _assemble(config: Mapping[str, Any], tensors: Mapping[str, FloatArray]) -> ClipWeights:
    if config.get("model_type") != "clip" or config.get("text_config_dict"):
        raise ValueError(f"model_type {config.get('model_type')!r}")
    text, vision = _settings(config, "text_config"), _settings(config, "vision_config")
    if config.get("vision_config_dict") or vision["num_channels"] != 3:
        raise ValueError("an unusual vision_config")
    get = _Checked(tensors)
    width, patch, size = vision["hidden_size"], vision["patch_size"], vision["image_size"]
    places, dimension = (size // patch) ** 2 + 1, config.get("projection_dim", 512)
    eos = text["eos_token_id"]
    return ClipWeights(
        _tower(get, "vision", vision, "post_layernorm", places, dimension),
        _tower(get, "text", text, "final_layer_norm", text["max_position_embeddings"], dimension),
        get("vision_model.embeddings.patch_embedding.weight", width, 3, patch, patch),
        get("vision_model.embeddings.class_embedding", width),
        # Their spelling.
        get.pair("vision_model.pre_layrnorm", width),
        size,
        get(
            "text_model.embeddings.token_embedding.weight", text["vocab_size"], text["hidden_size"]
        ),
        # 2 stands in the configs of OpenAI's models and is wrong: transformers then pools there.
        None if eos == 2 else int(eos),
    )


def _settings(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    defaults = _TEXT if name == "text_config" else _VISION
    settings = defaults | {k: v for k, v in (config.get(name) or {}).items() if k in defaults}
    if settings["hidden_act"] not in ACTIVATIONS:
        raise ValueError(f"hidden_act {settings['hidden_act']!r}")
    if settings["hidden_size"] % settings["num_attention_heads"]:
        raise ValueError("hidden_size is no multiple of num_attention_heads")
    return settings


def _tower(
    get: _Checked, kind: str, settings: Mapping[str, Any], norm: str, places: int, dimension: int
) -> Tower:
    root, width = f"{kind}_model", settings["hidden_size"]
    inner = settings["intermediate_size"]
    count = settings["num_hidden_layers"]
    layers = [_layer(get, f"{root}.encoder.layers.{i}", width, inner) for i in range(count)]
    return Tower(
        tuple(layers),
        settings["num_attention_heads"],
        settings["hidden_act"],
        settings["layer_norm_eps"],
        get(f"{root}.embeddings.position_embedding.weight", places, width),
        get.pair(f"{root}.{norm}", width),
        get("visual_projection.weight" if kind == "vision" else "text_projection.weight",
            dimension, width),
    )  # fmt: skip


def _layer(get: _Checked, root: str, width: int, inner: int) -> Layer:
    def attention(part: str) -> Linear:
        return get.pair(f"{root}.self_attn.{part}_proj", width, width)

    return Layer(
        norm1=get.pair(f"{root}.layer_norm1", width),
        q=attention("q"),
        k=attention("k"),
        v=attention("v"),
        out=attention("out"),
        norm2=get.pair(f"{root}.layer_norm2", width),
        fc1=get.pair(f"{root}.mlp.fc1", inner, width),
        fc2=get.pair(f"{root}.mlp.fc2", width, inner),
    )


class _Checked:
    """Tensors by name; a missing one is a KeyError, one of another shape a ValueError."""

    def __init__(self, tensors: Mapping[str, FloatArray]) -> None:
        self._tensors = tensors

    def __call__(self, name: str, *shape: int) -> FloatArray:
        tensor = self._tensors[name]
        if tensor.shape != shape:
            raise ValueError(f"{name} has the shape {tensor.shape}, not {shape}")
        return tensor

    def pair(self, name: str, *shape: int) -> Linear:
        """Weight and bias; `shape` is the weight's, the bias has its first length."""
        return self(f"{name}.weight", *shape), self(f"{name}.bias", shape[0])


def _tensors(directory: Path) -> Iterator[tuple[str, FloatArray]]:
    """Every float tensor, mapped; half-precision ones are widened, which is exact."""
    for path in model_files.weight_files(directory):
        with path.open("rb") as file:
            # Copy-on-write: torch wants arrays that may be written to.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        start = 8 + int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8:start]).items():
            if name != "__metadata__" and entry["dtype"] in _TYPES:
                yield name, _tensor(data, start, entry)


def _tensor(data: mmap.mmap, start: int, entry: Mapping[str, Any]) -> FloatArray:
    begin, end = entry["data_offsets"]
    kind, shape = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"])
    count = int(np.prod(shape, dtype=np.int64))
    if begin < 0 or end - begin != count * kind.itemsize:
        raise ValueError("a tensor's place and shape do not fit")
    flat = np.frombuffer(data, kind, count, start + begin).reshape(shape)
    if entry["dtype"] == "BF16":
        return (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.astype(np.float32, copy=False)
