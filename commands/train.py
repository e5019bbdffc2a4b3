"""The commands that train and evaluate probes: train, evaluate, policy."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import PATH, Number, probe_option, shelf_options
from kinshelf.commands.terminal.output import Output
from kinshelf.commands.terminal.progress import progress

if TYPE_CHECKING:
    from kinshelf.face import Shelf
    from kinshelf.probe.evaluate.held_out import Evaluation
    from kinshelf.probe.fit.settings import Policy
    from kinshelf.probe.fit.training import EpochResult
    from kinshelf.probe.train import TrainReport

RECIPE = "Recipe"
START = "Input and output of the training"
MACHINES = "Machines"


@command(examples=[
    "kinshelf train",
    "kinshelf train --epochs 20 --hidden 128 --seed 7",
    "kinshelf train --warm-start",
])  # fmt: skip
@option("--epochs", type=int, group=RECIPE, show_default="50",
        help="Stop after so many passes at the latest.")  # fmt: skip
@option("--batch-size", type=int, group=RECIPE, show_default="64",
        help="Take so many products a step.")  # fmt: skip
@option("--lr", type=float, group=RECIPE, show_default="0.001",
        help="Set Adam's learning rate.")  # fmt: skip
@option("--weight-decay", type=float, group=RECIPE, show_default="0.0001",
        help="Set Adam's weight decay.")  # fmt: skip
@option("--hidden", type=int, group=RECIPE, show_default="256",
        help="Give the hidden layer this width.")  # fmt: skip
@option("--dropout", type=float, group=RECIPE, show_default="0.2",
        help="Drop this share of the hidden layer's outputs.")  # fmt: skip
@option("--patience", type=int, group=RECIPE, show_default="3",
        help="Stop after so many epochs without a lower loss.")  # fmt: skip
@option("--seed", type=int, group=RECIPE, show_default="42",
        help="Start from this seed. Equal seeds and data make equal probes.")  # fmt: skip
@option("--config", type=PATH, metavar="FILE", group=RECIPE,
        help="Read these settings from a TOML file. Options win over it.")  # fmt: skip
@option("--group", metavar="COLUMN", group=START, show_default="copies alone",
        help="Keep products of equal values in this column on one side of every fold and split,"
        " as copies are. `evaluate` and `audit` then do so too.")  # fmt: skip
@option("--warm-start", is_flag=True, group=START,
        help="Start from the newest probe's weights.")  # fmt: skip
@option("--from", "parts", type=PATH, metavar="DIR", group=START, show_default="the shelf",
        help="Train from a folder that `encode` wrote, of any size.")  # fmt: skip
@option("--include-predicted", is_flag=True, group=START,
        help="Learn from categories that a probe predicted too.")  # fmt: skip
@option("--checkpoint", type=PATH, metavar="FILE", group=START,
        help="Write a torch checkpoint (.pth) to this file too.")  # fmt: skip
@option("-v", "--verbose", is_flag=True, group=START, help="Print a line for each epoch.")
@option("--device", group=MACHINES, show_default="cuda if there is one, else cpu",
        help="Compute on this device: cpu, cuda or cuda:1.")  # fmt: skip
@option("--ray", metavar="ADDRESS", group=MACHINES,
        help="Share the rows among Ray workers. This pays from a million rows and a --batch-size"
        " of 1024 on. With small batches it is slower.")  # fmt: skip
@option("--workers", type=click.IntRange(1), default=2, group=MACHINES,
        help="Use so many Ray workers.")  # fmt: skip
@shelf_options
def train(
    output: Output,
    config: Path | None,
    checkpoint: Path | None,
    warm_start: bool,
    verbose: bool,
    parts: Path | None,
    ray: str | None,
    workers: int,
    include_predicted: bool,
    **settings: Any,
) -> None:
    """Train a probe from the shelf's embeddings, and calibrate it.

    The defaults are those of the published recipe.
    """
    from kinshelf.probe.fit.settings import ProbeSettings
    from kinshelf.probe.fit.split import FOLDS

    if include_predicted and (parts is not None or ray is not None):
        raise click.UsageError("--include-predicted goes with neither --from nor --ray")
    base = ProbeSettings.from_toml(config) if config else ProbeSettings()
    chosen = base.override(**settings)

    with (
        output.open() as shelf,
        _trained_by(shelf, parts, ray, workers) as train_shelf,
        progress(output, "training", 1 + FOLDS) as update,
    ):

        def show(result: EpochResult) -> None:
            update(min(result.epoch / chosen.epochs, 1), f"epoch {result.epoch}")
            if verbose:
                output.say(epoch_line(result))

        more = {"data": shelf.snapshot().with_predicted()} if include_predicted else {}
        report = train_shelf(
            shelf, chosen, on_epoch=show, checkpoint=checkpoint, warm_start=warm_start,
            on_part=lambda done, _parts: update(1 + done, "calibrating"), **more,
        )  # fmt: skip
    for warning in report.warnings:
        output.warn(f"warning: {warning}")
    if output.as_json:
        output.emit(report.as_dict())
    _say_trained(output, report)


def _say_trained(output: Output, report: TrainReport) -> None:
    """The probe, its accuracy, and what comes next."""
    from kinshelf.db.text import percent

    start = f", starting from probe {report.warm_start}" if report.warm_start else ""
    output.say(
        f"probe {report.version}: {len(report.classes)} categories, trained on"
        f" {report.trained_rows} products in {report.seconds:.1f} s{start}, generation"
        f" {report.generation}"
    )
    held_out, accuracy = report.metrics.get("held_out_rows"), report.metrics.get("val_accuracy")
    if held_out and accuracy is not None:
        output.say(f"of {held_out} products that were kept aside, {percent(accuracy)} were right")
    output.say("next: kinshelf evaluate, or kinshelf classify --image PICTURE --text TITLE")


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


@command(examples=["kinshelf evaluate", "kinshelf evaluate -o report", "kinshelf evaluate --json"])
@option("--split", default="val", help="Evaluate on the products of this split.")
@option("--group", metavar="COLUMN", show_default="that of `train`",
        help="Take products of equal values in this column for copies.")  # fmt: skip
@option("-o", "--output", "directory", type=PATH, metavar="FOLDER",
        help="Write metrics.json, report.html and figures to this folder.")  # fmt: skip
@probe_option
@shelf_options
def evaluate(
    output: Output, split: str, group: str | None, directory: Path | None, probe: int | None
) -> None:
    """Measure probe, kNN and hybrid side by side on products held out from training.

    Products that have a copy outside the split do not count: the probe knows them. Copies have
    the same or nearly the same picture and text, as `audit` finds them. Where no product is left,
    five-fold cross-validation over those that train is reported, with copies in the same fold.
    """
    from kinshelf.commands.terminal.tables import metrics_tables
    from kinshelf.probe.evaluate.held_out import evaluate_shelf

    with output.open() as shelf:
        found = evaluate_shelf(shelf, split=split, version=probe, group=group)
        if directory is not None:
            for path in (*found.write(directory), _report(shelf, found, directory)):
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


def _report(shelf: Shelf, found: Evaluation, directory: Path) -> Path:
    from kinshelf.probe.pages.report import write_report
    from kinshelf.probe.pages.thumbnails import Thumbnails

    path = directory / "report.html"
    write_report(path, shelf.snapshot(), found, Thumbnails(shelf.path / "images"))
    return path


_SHARE = Number(0, 1, min_open=True, max_open=True)


@command(examples=[
    "kinshelf policy --precision 0.9",
    "kinshelf policy --precision 0.9 --confidence 0.8",
    "kinshelf policy --precision 0.9 --depth",
])  # fmt: skip
@option("--precision", type=_SHARE, required=True, metavar="P",
        help="Require that this share of the accepted answers is right, such as 0.98.")  # fmt: skip
@option("--confidence", type=_SHARE, default=0.9,
        help="Require that the precision holds with this probability.")  # fmt: skip
@option(
    "--depth",
    is_flag=True,
    help="Accept a category that stands under others only where the answer is sure down to it:"
    " so a product of a category that the shelf never had is left at what it stands under.",
)
@probe_option
@shelf_options
def policy(
    output: Output, precision: float, confidence: float, depth: bool, probe: int | None
) -> None:
    """Find the probability from which answers need no review, for a precision that you name.

    The products held out from training decide: it is the lowest probability from which the
    answers are right often enough where probe and neighbours agree. Copies count once. The bound
    is exact for the answers to these products, which probes gave that never saw them; the probe
    that `classify` uses learned from all. A new version of the probe stores the policy, and
    `classify` accepts answers by it.
    """
    from kinshelf.probe.calibrate.policy import set_policy

    with output.open() as shelf:
        report = set_policy(shelf, precision, confidence=confidence, depth=depth, version=probe)
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
        "precision": f"{percent(chosen.precision)} of these {chosen.n} were right, copies counted"
        " once",
        "promised": f"on held-out products at least {low} and at most {high}, each with"
        f" {percent(chosen.confidence, 0)} confidence; {percent(chosen.wanted)} was asked for",
    }
