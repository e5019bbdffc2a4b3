"""Train the tiny CLIP: `python -m kinshelf.samples.train_tiny_clip --out DIR`.

A real `transformers.CLIPModel` of 0.85 million parameters with its own byte-level BPE tokenizer,
trained from random weights with CLIP's symmetric contrastive loss (Radford et al. 2021, section
2.3) on pictures and captions from the sample shop's generator, of other seeds than the catalogue's.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click
import torch

from kinshelf.samples.pairs import IMAGE_SIDE, Pairs
from kinshelf.samples.tiny_tokenizer import END, START

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer
    from torch import Tensor

CONTEXT = 77
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Settings:
    """How the tiny CLIP is trained; the defaults made the one that the package carries."""

    pairs: int = 10_000
    held_out: int = 512
    epochs: int = 14
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    seed: int = 2021


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures (n, side, side, 3) uint8 and captions as token ids (n, longest) with their mask."""

    pictures: Tensor
    ids: Tensor
    mask: Tensor


def new_model(tokenizer: Tokenizer) -> Any:
    """A `CLIPModel` with random weights, sized for pictures of 64 pixels and this vocabulary."""
    from transformers import CLIPConfig, CLIPModel

    common = {"hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 4}
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    text = {
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": CONTEXT,
        "num_hidden_layers": 2,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    vision = {"image_size": IMAGE_SIDE, "patch_size": 8, "num_hidden_layers": 4}
    config = CLIPConfig(
        text_config={**common, **text}, vision_config={**common, **vision}, projection_dim=128
    )
    return CLIPModel(config)


def encode(tokenizer: Tokenizer, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (n, longest) int64, padded with the end token."""
    encoded = [line.ids[: CONTEXT - 1] for line in tokenizer.encode_batch(captions)]
    end = tokenizer.token_to_id(END)
    encoded = [ids if ids[-1] == end else [*ids, end] for ids in encoded]
    longest = max(map(len, encoded))
    ids = torch.tensor([line + [end] * (longest - len(line)) for line in encoded])
    mask = torch.tensor([[1] * len(line) + [0] * (longest - len(line)) for line in encoded])
    return ids, mask


def normalised(pictures: Tensor) -> Tensor:
    """uint8 (n, side, side, 3) to what CLIP's vision tower reads: float32 (n, 3, side, side)."""
    scaled = (pictures.float() / 255 - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)
    return scaled.permute(0, 3, 1, 2).contiguous()


def batches(pairs: Pairs, tokenizer: Tokenizer, size: int) -> Iterator[Batch]:
    """The pairs in a new random order; every second batch mirrored and all a little shifted."""
    order = torch.randperm(len(pairs.captions))
    pictures = torch.from_numpy(pairs.pictures)
    for first in range(0, len(order) - size + 1, size):
        chosen = order[first : first + size]
        ids, mask = encode(tokenizer, [pairs.captions[at] for at in chosen.tolist()])
        shift = torch.randint(-4, 5, (2,)).tolist()
        moved = torch.roll(pictures[chosen], shift, dims=(1, 2))
        if torch.rand(()) < 0.5:
            moved = moved.flip(2)
        yield Batch(moved, ids, mask)


def train(
    model: Any, pairs: Pairs, held_out: Pairs, tokenizer: Tokenizer, settings: Settings
) -> list[dict[str, Any]]:
    """Train in place; returns one log line per epoch."""
    groups = (
        [p for p in model.parameters() if p.ndim > 1],
        [p for p in model.parameters() if p.ndim < 2],
    )
    optimizer = torch.optim.AdamW(
        [
            {"params": groups[0], "weight_decay": settings.weight_decay},
            {"params": groups[1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
    )
    steps = settings.epochs * (len(pairs.captions) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, steps, pct_start=0.08
    )
    log: list[dict[str, Any]] = []
    started = time.monotonic()
    for epoch in range(1, settings.epochs + 1):
        model.train()
        losses = [
            _step(model, batch, optimizer, schedule)
            for batch in batches(pairs, tokenizer, settings.batch_size)
        ]
        line = {
            "epoch": epoch,
            "seconds": round(time.monotonic() - started, 1),
            "loss": round(sum(losses) / len(losses), 4),
            **retrieval(model, held_out, tokenizer),
        }
        log.append({**line, **asdict(settings)})
        click.echo(json.dumps(line), err=True)
    return log


def _step(model: Any, batch: Batch, optimizer: Any, schedule: Any) -> float:
    loss = model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        pixel_values=normalised(batch.pictures),
        return_loss=True,
    ).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, 4.6052)
    return float(loss.detach())


def embed(model: Any, pairs: Pairs, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Unit image and text embeddings, each (n, 128) float32."""
    ids, mask = encode(tokenizer, pairs.captions)
    with torch.no_grad():
        out = model(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=normalised(torch.from_numpy(pairs.pictures)),
        )
    return out.image_embeds, out.text_embeds


def retrieval(model: Any, held_out: Pairs, tokenizer: Tokenizer) -> dict[str, float]:
    model.eval()
    images, texts = embed(model, held_out, tokenizer)
    similarity = images @ texts.T
    truth = torch.arange(len(images))
    found = {
        "image_to_text_top1": similarity.argmax(1) == truth,
        "text_to_image_top1": similarity.argmax(0) == truth,
        "image_to_text_top5": (similarity.topk(5, dim=1).indices == truth[:, None]).any(1),
    }
    return {name: round(float(hits.float().mean()), 4) for name, hits in found.items()}
