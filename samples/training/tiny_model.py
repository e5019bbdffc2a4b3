"""The tiny CLIP itself: a `transformers.CLIPModel` from random weights, and what it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kinshelf.samples.training.pairs import IMAGE_SIDE
from kinshelf.samples.training.tiny_tokenizer import END, START

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

CONTEXT = 77
PATCH = 16
WIDTH = 96
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def new_model(tokenizer: Tokenizer) -> Any:
    """A `CLIPModel` with random weights, for pictures of 64 pixels and this vocabulary."""
    from transformers import CLIPConfig, CLIPModel

    common = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4}
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    text = {
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": CONTEXT,
        "num_hidden_layers": 2,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    vision = {"image_size": IMAGE_SIDE, "patch_size": PATCH, "num_hidden_layers": 4}
    model = CLIPModel(
        CLIPConfig(
            text_config={**common, **text},
            vision_config={**common, **vision},
            projection_dim=128,
        )
    )
    with torch.no_grad():
        # A vision transformer of this size learns from so few pictures only if it need not
        # first find out which patch lies beside which.
        places = model.vision_model.embeddings.position_embedding.weight
        places[1:] = 0.5 * _sine_places(IMAGE_SIDE // PATCH, WIDTH)
    return model


def _sine_places(side: int, width: int) -> Tensor:
    """Sines and cosines of each patch's column and row: (side * side, width) float32."""
    rates = 100.0 ** -(torch.arange(width // 4) / (width // 4))
    steps = torch.arange(side) * (torch.pi / 2)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    angles = [grid.reshape(-1, 1) * rates for grid in (columns, rows)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)


def token_ids(tokenizer: Tokenizer, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids (n, longest) int64, padded with the end token, and each caption's length (n,)."""
    end = tokenizer.get_vocab_size() - 1
    lines = [line.ids[: CONTEXT - 1] for line in tokenizer.encode_batch(captions)]
    lines = [line if line[-1] == end else [*line, end] for line in lines]
    lengths = torch.tensor([len(line) for line in lines])
    longest = int(lengths.max())
    return torch.tensor([line + [end] * (longest - len(line)) for line in lines]), lengths


def image_embeddings(model: Any, pictures: Tensor) -> Tensor:
    """Unit (n, 128) float32 embeddings of (n, side, side, 3) pictures with levels 0 to 255."""
    levels = (pictures.float() / 255 - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)
    out = model.get_image_features(pixel_values=levels.permute(0, 3, 1, 2).contiguous())
    return torch.nn.functional.normalize(out.pooler_output, dim=-1)


def text_embeddings(model: Any, tokenizer: Tokenizer, captions: list[str]) -> Tensor:
    """Unit (n, 128) float32 embeddings, computed in four groups of similar length.

    No attention mask is needed: attention is causal and the pooled token stands before the padding.
    """
    ids, lengths = token_ids(tokenizer, captions)
    order = lengths.argsort()
    groups = [
        model.get_text_features(input_ids=ids[part, : int(lengths[part].max())]).pooler_output
        for part in order.chunk(4)
    ]
    return torch.nn.functional.normalize(torch.cat(groups)[order.argsort()], dim=-1)
