"""Random CLIPs built here, and plain transformers as the oracle for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SHARED = Path(__file__).parents[2] / "shared"
TOKENIZER = SHARED / "clip-tokenizer"
PICTURES = SHARED / "amazon2020" / "images"
# Two float32 passes differ by up to 1.2e-6 (60 such models, 60 pictures each; against float64 the
# reference errs by 0.7e-6, ours by 1.0e-6).
CLOSE = 2e-6

TEXTS = [
    "a red wooden train",
    "",
    "   ",
    "Ünïcode — naïve café ﬁ",
    "🧸🎲🚂 👩‍👩‍👧‍👦",
    "日本のおもちゃ",
    "<|endoftext|> inside",
    "x" * 10_000,
    "wooden puzzle " * 300,
    "it's 1,000 pieces!!! || ages 3+",
]


def write_tokenizer(directory: Path) -> None:
    """CLIP's own tokenizer where the shared folder has it, else one of bytes and few merges."""
    if TOKENIZER.is_dir():
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json"):
            shutil.copyfile(TOKENIZER / name, directory / name)
        return
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e</w>"), ("o", "o"), ("w", "oo"), ("woo", "d")]
    tokens = letters + [f"{letter}</w>" for letter in letters] + [a + b for a, b in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges), ""]
    (directory / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (directory / "merges.txt").write_text("\n".join(lines), "utf-8")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def write_processor(directory: Path, **changes: Any) -> None:
    values: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor",
        **{"do_resize": True, "size": {"shortest_edge": 64}, "resample": 3},
        **{"do_center_crop": True, "crop_size": {"height": 64, "width": 64}},
        **{"do_rescale": True, "rescale_factor": 1 / 255, "do_convert_rgb": True},
        **{"do_normalize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073]},
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(values | changes))


def lively(model: Any, seed: int = 0) -> Any:
    """Weights far enough from zero that different inputs get clearly different embeddings."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        # A vector too, where it isn't a bias or a norm: what torch draws by itself has no seed.
        if parameter.dim() > 1 or name.endswith("class_embedding"):
            with torch.no_grad():
                parameter.normal_(std=0.15, generator=generator)
    return model


def vocabulary(directory: Path) -> dict[str, int]:
    return json.loads((directory / "vocab.json").read_text("utf-8"))


def write_tiny_clip(directory: Path, **save: Any) -> Path:
    from transformers import CLIPConfig, CLIPModel

    directory.mkdir(parents=True)
    write_tokenizer(directory)
    write_processor(directory)
    tokens = vocabulary(directory)
    text = {
        **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "vocab_size": len(tokens), "max_position_embeddings": 77},
        **{"bos_token_id": tokens["<|startoftext|>"], "eos_token_id": tokens["<|endoftext|>"]},
        "pad_token_id": tokens["<|endoftext|>"],
    }
    vision = {
        **{"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "image_size": 64, "patch_size": 16},
    }
    config = CLIPConfig(projection_dim=24, text_config=text, vision_config=vision)
    lively(CLIPModel(config)).save_pretrained(directory, **save)
    return directory


class Oracle:
    """transformers used plainly: one at a time, its own processor."""

    def __init__(self, directory: Path, padding: bool | str = True) -> None:
        from transformers import AutoModel, AutoProcessor

        self.model = AutoModel.from_pretrained(directory).eval()
        # Where torchvision is installed its own, of other rounding, would be the default.
        self.processor = AutoProcessor.from_pretrained(directory, backend="pil")
        self.padding = padding

    def images(self, images: list[Image.Image]) -> np.ndarray:
        inputs = [self.processor(images=image, return_tensors="pt") for image in images]
        return self._rows([self.model.get_image_features(**each) for each in inputs])

    def texts(self, texts: list[str]) -> np.ndarray:
        wanted = {"padding": self.padding, "truncation": True, "return_tensors": "pt"}
        inputs = [self.processor(text=[text], **wanted) for text in texts]
        return self._rows([self.model.get_text_features(**each) for each in inputs])

    @staticmethod
    def _rows(outputs: list[Any]) -> np.ndarray:
        rows = np.concatenate([out.pooler_output.detach().numpy() for out in outputs])
        rows = rows.astype(np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise over a slope: every resampling mistake shows."""
    values = np.random.default_rng(seed).integers(0, 128, (height, width, 3))
    slope = np.linspace(0, 127, width)[None, :, None]
    return Image.fromarray((values + slope).astype(np.uint8))


MIXED = [picture(w, h, i) for i, (w, h) in enumerate([(64, 64), (65, 64), (300, 50), (51, 407)])]


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes))
