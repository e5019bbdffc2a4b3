"""Train the tiny CLIP: `python -m kinshelf.samples.training.train_tiny_clip --out DIR`.

A real `transformers.CLIPModel` of 0.9 million parameters with its own byte-level BPE tokenizer,
trained from random weights with CLIP's symmetric contrastive loss (Radford et al. 2021, figure 3)
on pictures and captions from the sample shop's generator, of other seeds than the catalogue's.
"""

from __future__ import annotations

import csv
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from kinshelf.samples.training.pairs import IMAGE_SIDE, Pairs, draw_pairs
from kinshelf.samples.training.tiny_model import (
    CONTEXT,
    PIXEL_MEAN,
    PIXEL_STD,
    image_embeddings,
    new_model,
    text_embeddings,
)
from kinshelf.samples.training.tiny_tokenizer import END, START, train_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer
    from torch import Tensor

LARGEST_SCALE = 4.6052
"""CLIP clips its logit scale at 100, the exponential of this."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the tiny CLIP is trained; the defaults made the one that the package carries."""

    pairs: int = 12_000
    held_out: int = 512
    merges: int = 700
    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    seed: int = 2021
    threads: int = 1


def train(
    model: Any, pairs: Pairs, held_out: Pairs, tokenizer: Tokenizer, settings: Settings
) -> list[dict[str, float]]:
    """Train in place; returns one line of measurements per epoch."""
    optimizer = _optimizer(model, settings)
    steps = settings.epochs * (len(pairs.captions) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, steps, pct_start=0.1
    )
    log: list[dict[str, float]] = []
    started = time.monotonic()
    for epoch in range(1, settings.epochs + 1):
        model.train()
        losses = []
        for pictures, captions in batches(pairs, settings.batch_size):
            images = image_embeddings(model, moved(pictures))
            losses.append(_learn(model, images, text_embeddings(model, tokenizer, captions)))
            _advance(model, optimizer, schedule)
        loss, seconds = sum(losses) / len(losses), time.monotonic() - started
        found = retrieval(model, held_out, tokenizer)
        log.append({"epoch": epoch, "seconds": round(seconds), "loss": round(loss, 4), **found})
        click.echo(json.dumps(log[-1]), err=True)
    return log


def batches(pairs: Pairs, size: int) -> Iterator[tuple[Tensor, list[str]]]:
    """The pictures in a new random order, each with one of its captions, half of them short."""
    order = torch.randperm(len(pairs.captions))
    pictures = torch.from_numpy(pairs.pictures)
    lengths = torch.tensor([0.5, 0.25, 0.25]).multinomial(len(order), replacement=True)
    for first in range(0, len(order) - size + 1, size):
        chosen = order[first : first + size]
        yield pictures[chosen], [pairs.captions[at][int(lengths[at])] for at in chosen.tolist()]


def moved(pictures: Tensor) -> Tensor:
    """Each picture mirrored or not, a little turned, scaled, shifted, lit; some seen from near."""
    count = len(pictures)
    turn, scale = _spread(count, 0.12), 1.0 + _spread(count, 0.12)
    near = torch.rand(count) < 0.08
    scale, reach = torch.where(near, 0.55 * scale, scale), torch.where(near, 0.3, 0.07)
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    rows = (
        torch.stack([mirror * scale * turn.cos(), -scale * turn.sin(), _spread(count, 1) * reach]),
        torch.stack([mirror * scale * turn.sin(), scale * turn.cos(), _spread(count, 1) * reach]),
    )
    grid = affine_grid(
        torch.stack(rows).permute(2, 0, 1), [count, 3, IMAGE_SIDE, IMAGE_SIDE], align_corners=False
    )
    levels = pictures.permute(0, 3, 1, 2).float()
    seen = grid_sample(levels, grid, padding_mode="reflection", align_corners=False)
    light = 1.0 + _spread(count, 0.1)
    return (seen * light[:, None, None, None]).clamp(0, 255).permute(0, 2, 3, 1)


def _spread(count: int, reach: float) -> Tensor:
    return (torch.rand(count) * 2 - 1) * reach


def _optimizer(model: Any, settings: Settings) -> torch.optim.AdamW:
    """AdamW as CLIP uses it: no weight decay on gains, biases and the logit scale."""
    weights = [part for part in model.parameters() if part.ndim > 1]
    gains = [part for part in model.parameters() if part.ndim < 2]
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": gains, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def _learn(model: Any, images: Tensor, texts: Tensor) -> float:
    """Back-propagate the mean of both directions' cross-entropies; returns it."""
    logits = model.logit_scale.exp() * images @ texts.T
    truth = torch.arange(len(logits))
    loss = (cross_entropy(logits, truth) + cross_entropy(logits.T, truth)) / 2
    torch.autograd.backward(loss)
    return float(loss.detach())


def _advance(model: Any, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    with torch.no_grad():
        model.logit_scale.clamp_(0, LARGEST_SCALE)


def retrieval(model: Any, held_out: Pairs, tokenizer: Tokenizer) -> dict[str, float]:
    """How often a held-out picture finds its own short caption, and the caption its picture."""
    model.eval()
    with torch.no_grad():
        images = image_embeddings(model, torch.from_numpy(held_out.pictures))
        captions = [short for short, *_ in held_out.captions]
        similarity = images @ text_embeddings(model, tokenizer, captions).T
    truth = torch.arange(len(similarity))
    hits = {
        "image_to_text_top1": similarity.argmax(1) == truth,
        "image_to_text_top5": (similarity.topk(5, dim=1).indices == truth[:, None]).any(1),
        "text_to_image_top1": similarity.argmax(0) == truth,
    }
    return {name: round(float(found.float().mean()), 4) for name, found in hits.items()}


def save(
    model: Any, tokenizer: Tokenizer, log: list[dict[str, float]], settings: Settings, out: Path
) -> None:
    """Write what `CLIPModel`, `AutoTokenizer` and `CLIPProcessor` load, and the training log."""
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # it comes readable to its owner only
    tokenizer.save(str(out / "tokenizer.json"))
    for name, content in (
        ("tokenizer_config.json", _tokenizer_config()),
        ("preprocessor_config.json", _processor_config()),
    ):
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    lines = [{**line, **asdict(settings)} for line in log]
    with (out / "training_log.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }


def _processor_config() -> dict[str, object]:
    """CLIP's own preprocessing, but for the size."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": IMAGE_SIDE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": IMAGE_SIDE, "width": IMAGE_SIDE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
    }


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--pairs", type=int, default=Settings().pairs, show_default=True)
@click.option("--epochs", type=int, default=Settings().epochs, show_default=True)
@click.option("--seed", type=int, default=Settings().seed, show_default=True)
@click.option("--threads", type=int, default=Settings().threads, show_default=True)
def main(out: Path, pairs: int, epochs: int, seed: int, threads: int) -> None:
    """Draw the pictures, train the tiny CLIP on them, and write it to a directory."""
    settings = Settings(pairs=pairs, epochs=epochs, seed=seed, threads=threads)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    shown = draw_pairs(settings.pairs, settings.seed, "train")
    held_out = draw_pairs(settings.held_out, settings.seed, "held-out")
    captions = [caption for triple in shown.captions for caption in triple]
    tokenizer = train_tokenizer(captions, settings.merges)
    model = new_model(tokenizer)
    log = train(model, shown, held_out, tokenizer, settings)
    save(model, tokenizer, log, settings, out)


if __name__ == "__main__":
    main()
