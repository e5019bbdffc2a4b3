"""Commands that make and judge probes: train, evaluate, policy."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.common import PATH, Number, Output, shelf_options

if TYPE_CHECKING:
    from kinshelf.face import Shelf
    from kinshelf.probe.evaluate.held_out import Evaluation
    from kinshelf.probe.fit.settings import Policy
    from kinshelf.probe.fit.training import EpochResult
    from kinshelf.probe.train import TrainReport


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
@click.option("--warm-start", is_flag=True, help="Start from the newest probe's weights.")
@click.option("--from", "parts", type=PATH, metavar="DIR",
              help="Train from a folder that `encode` wrote, of any size.")  # fmt: skip
@click.option("--ray", metavar="ADDRESS",
              help="Share the rows among Ray workers. Pays from a million rows and"
              " a --batch-size of 1024 on; with small batches it is slower.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True,
              help="Of --ray.")  # fmt: skip
@shelf_options
def train(
    output: Output,
    config: Path | None,
    checkpoint: Path | None,
    warm_start: bool,
    parts: Path | None,
    ray: str | None,
    workers: int,
    **settings: Any,
) -> None:
    """Train a probe from the shelf's embeddings; defaults are the published recipe's."""
    from kinshelf.probe.fit.settings import ProbeSettings

    base = ProbeSettings.from_toml(config) if config else ProbeSettings()
    chosen = base.override(**settings)

    def show(result: EpochResult) -> None:
        output.say(epoch_line(result))

    def judged(done: int, parts: int) -> None:
        output.say(f"calibrating {done}/{parts}")

    with output.open() as shelf, _trained_by(shelf, parts, ray, workers) as train_shelf:
        report = train_shelf(
            shelf, chosen, on_epoch=show, on_part=judged, checkpoint=checkpoint,
            warm_start=warm_start,
        )  # fmt: skip
    for warning in report.warnings:
        output.warn(f"warning: {warning}")
    if output.as_json:
        output.emit(report.as_dict())
    start = f", starting from probe {report.warm_start}" if report.warm_start else ""
    output.say(
        f"probe {report.version}: {len(report.classes)} categories, trained on"
        f" {report.trained_rows} products in {report.seconds:.1f} s{start}, generation"
        f" {report.generation}"
    )


@contextlib.contextmanager
def _trained_by(
    shelf: Shelf, parts: Path | None, ray: str | None, workers: int
) -> Iterator[Callable[..., TrainReport]]:
    """`probe.shelf.train_shelf`, from the rows and on the machines that were asked for."""
    from kinshelf.cluster.blocks import open_parts, spooled
    from kinshelf.probe.train import train_shelf
    from kinshelf.store.shelf import DirectoryShelf

    more: dict[str, Any] = {}
    if ray is not None:
        _check_shared(shelf, parts)
    with contextlib.ExitStack() as stack:
        if parts is not None:
            at = shelf.snapshot().generation  # what comes to the shelf from now on is new
            data = open_parts(parts, shelf.fingerprint, generation=at)
            more["data"] = stack.enter_context(data)
        elif not isinstance(shelf, DirectoryShelf):
            more["data"] = stack.enter_context(spooled(shelf))
        if ray is not None:
            from kinshelf.cluster.ray_train import fit_on_ray

            more["fit"] = functools.partial(
                fit_on_ray, address=ray, workers=workers, shelf=shelf.path, parts=parts
            )
        yield functools.partial(train_shelf, **more)


def _check_shared(shelf: Shelf, parts: Path | None) -> None:
    """Raises OnlyInDirectory where Ray's workers could not read the rows."""
    from kinshelf.db.errors import OnlyInDirectory
    from kinshelf.store.shelf import DirectoryShelf

    if parts is None and not isinstance(shelf, DirectoryShelf):
        raise OnlyInDirectory(
            "--ray reads a shelf in a directory, or the parts of `encode`: give --from DIR"
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
    from kinshelf.commands.terminal.tables import metrics_tables
    from kinshelf.probe.evaluate.held_out import evaluate_shelf

    with output.open() as shelf:
        found = evaluate_shelf(shelf, split=split, version=probe)
        if directory is not None:
            for path in (*found.write(directory), _report(shelf, found, split, directory)):
                output.say(f"wrote {path}")
    if output.as_json:
        output.emit(found.metrics)
    else:
        from kinshelf.probe.predict.wording import evaluation_notes

        metrics = found.metrics
        output.console().print(metrics_tables(dict(metrics)))
        for note in evaluation_notes(list(metrics.values())[-1]):
            output.console().print(note, markup=False, emoji=False, highlight=False, soft_wrap=True)
    output.say(found.protocol)


def _report(shelf: Shelf, found: Evaluation, split: str, directory: Path) -> Path:
    from kinshelf.probe.pages.report import write_report
    from kinshelf.probe.pages.thumbnails import Thumbnails

    path = directory / "report.html"
    write_report(path, shelf.snapshot(), found, split, Thumbnails(shelf.path / "images"))
    return path


_SHARE = Number(0, 1, min_open=True, max_open=True)


@click.command()
@click.option("--precision", type=_SHARE, required=True, metavar="P",
              help="Share of the accepted answers that must be right, such as 0.98.")  # fmt: skip
@click.option("--confidence", type=_SHARE, default=0.9, show_default=True,
              help="With what chance the promise must hold.")  # fmt: skip
@click.option("--probe", type=int, help="Version of the probe; the newest otherwise.")
@shelf_options
def policy(output: Output, precision: float, confidence: float, probe: int | None) -> None:
    """Find which answers need no review, at a precision that is promised, and store it.

    From answers to products held out while the probe was trained: the lowest probability at which
    answers, probe and neighbours agreeing, are right often enough. Stored with a new version of
    the probe, whose `classify` accepts by it.
    """
    from kinshelf.probe.calibrate.policy import set_policy

    with output.open() as shelf:
        report = set_policy(shelf, precision, confidence=confidence, version=probe)
    if output.as_json:
        output.emit(report.as_dict())
    else:
        from kinshelf.commands.terminal.tables import fields_table

        output.console().print(fields_table(policy_fields(report.policy)))
    output.say(
        f"probe {report.probe}: as probe {report.based_on}, with this policy; generation"
        f" {report.generation}"
    )


def policy_fields(chosen: Policy) -> dict[str, str]:
    """A policy in words."""
    from kinshelf.db.text import percent

    low, high = percent(chosen.precision_low), percent(chosen.precision_high)
    return {
        "accepted without review": f"from {percent(chosen.threshold, 2)} on, if probe and"
        " neighbours agree",
        "automation": f"{percent(chosen.automation)} of held-out answers pass",
        "precision": f"{percent(chosen.precision)} of these {chosen.n} were right",
        "promised": f"at least {low} and at most {high}, each with {percent(chosen.confidence, 0)}"
        f" confidence; {percent(chosen.wanted)} was asked for",
    }
