"""Commands that make and judge probes: train, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.common import PATH, Output, shelf_options

if TYPE_CHECKING:
    from kinshelf.probe.held_out import Evaluation
    from kinshelf.probe.training import EpochResult
    from kinshelf.store import Shelf


@click.command()
@click.option("--epochs", type=int, help="At most so many passes.")
@click.option("--batch-size", type=int, help="Products a step.")
@click.option("--lr", type=float, help="Adam's learning rate.")
@click.option("--weight-decay", type=float, help="Adam's weight decay.")
@click.option("--hidden", type=int, help="Width of the hidden layer.")
@click.option("--dropout", type=float, help="After the hidden layer.")
@click.option("--patience", type=int, help="Stop after so many epochs without a lower loss.")
@click.option("--seed", type=int, help="Equal seeds and data make equal probes.")
@click.option("--device", help="cpu, cuda or cuda:1; CUDA is taken if there is one.")
@click.option("--config", type=PATH, help="A TOML file of these settings; options win over it.")
@click.option("--checkpoint", type=PATH, help="Also write a torch checkpoint (.pth) here.")
@shelf_options
def train(output: Output, config: Path | None, checkpoint: Path | None, **settings: Any) -> None:
    """Train a probe from the shelf's embeddings; defaults are the published recipe's."""
    from kinshelf.probe.settings import ProbeSettings
    from kinshelf.probe.shelf import train_shelf

    base = ProbeSettings.from_toml(config) if config else ProbeSettings()
    chosen = base.override(**settings)

    def show(result: EpochResult) -> None:
        output.say(epoch_line(result))

    with output.open() as shelf:
        report = train_shelf(shelf, chosen, on_epoch=show, checkpoint=checkpoint)
    for warning in report.warnings:
        output.warn(f"warning: {warning}")
    if output.as_json:
        output.emit(report.as_dict())
    output.say(
        f"probe {report.version}: {len(report.classes)} categories, trained on"
        f" {report.trained_rows} products in {report.seconds:.1f} s, generation {report.generation}"
    )


def epoch_line(result: EpochResult) -> str:
    """One line of the training log."""
    line = f"{result.stage:5} epoch {result.epoch:3}  train loss {result.train_loss:.4f}"
    if result.val_loss is not None and result.val_accuracy is not None:
        line += f"  val loss {result.val_loss:.4f}  val accuracy {result.val_accuracy:.4f}"
    return f"{line}  {result.seconds:.2f} s"


@click.command()
@click.option("--split", default="val", show_default=True, help="Which products to judge by.")
@click.option("-o", "--output", "directory", type=PATH,
              help="Folder for metrics.json, report.html and figures.")  # fmt: skip
@click.option("--probe", type=int, help="Version of the probe; the newest otherwise.")
@shelf_options
def evaluate(output: Output, split: str, directory: Path | None, probe: int | None) -> None:
    """Judge probe, kNN and hybrid side by side on products held out from training.

    Where no product has that split, five-fold cross-validation over all of them is reported.
    """
    from kinshelf.commands.terminal import metrics_tables
    from kinshelf.probe.held_out import evaluate_shelf

    with output.open() as shelf:
        found = evaluate_shelf(shelf, split=split, version=probe)
        if directory is not None:
            for path in (*found.write(directory), _report(shelf, found, split, directory)):
                output.say(f"wrote {path}")
    if output.as_json:
        output.emit(found.metrics)
    else:
        output.console().print(metrics_tables(found.metrics))
    output.say(found.protocol)


def _report(shelf: Shelf, found: Evaluation, split: str, directory: Path) -> Path:
    from kinshelf.probe.report_page import write_report
    from kinshelf.probe.thumbnails import Thumbnails

    path = directory / "report.html"
    write_report(path, shelf.snapshot(), found, split, Thumbnails(shelf.path / "images"))
    return path
