"""The commands that maintain a shelf: verify, compact, reembed."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import encoder_options, shelf_options, wait_option
from kinshelf.commands.terminal.output import Output
from kinshelf.commands.terminal.progress import Interruption, build_index, progress

if TYPE_CHECKING:
    from kinshelf.store.maintain.repair import RepairReport
    from kinshelf.store.results import Finding


@command(examples=["kinshelf verify", "kinshelf verify --repair", "kinshelf verify --json"])
@option("--repair", is_flag=True,
        help="Rebuild what can be derived, and move damaged files to quarantine/.")  # fmt: skip
@shelf_options
def verify(output: Output, repair: bool) -> None:
    """Check every layer of the shelf; exits with 1 if damage was found and not repaired.

    One line a finding, with its remedy. Remains of interrupted writes are notes and no damage.
    """
    if repair:
        _repair(output)
        return
    from kinshelf.store.maintain.verify import verify_path

    findings, generation = verify_path(output.path)
    _print(output, findings)
    if any(not finding.harmless for finding in findings):
        sys.exit(1)
    output.say(f"{output.path}: generation {generation}, no damage found")


def _print(output: Output, findings: list[Finding]) -> None:
    for finding in findings:
        if output.as_json:
            output.emit(dataclasses.asdict(finding))
        else:
            note = "note: " if finding.harmless else ""
            click.echo(f"{note}{finding.file}: {finding.problem}. Remedy: {finding.remedy}.")


def _repair(output: Output) -> None:
    from kinshelf.store.maintain.repair import repair
    from kinshelf.store.maintain.verify import verify_path

    report = repair(output.path)
    left = [finding for finding in verify_path(output.path)[0] if not finding.harmless]
    if output.as_json:
        output.emit(report.as_dict())
    else:
        _print(output, report.findings)
        for line in _repaired(report):
            click.echo(line)
    _print(output, left)
    if left:
        sys.exit(1)
    output.say(f"{output.path}: generation {report.generation}, no damage left")


def _repaired(report: RepairReport) -> list[str]:
    lines = list(report.done)
    if report.lost_generations:
        first, last = report.lost_generations
        lines.append(f"lost: generations {first} to {last}; what they changed is not there")
    if report.lost_products:
        lines.append(f"lost: products {', '.join(report.lost_products)}; add them again")
    lines += [f"lost: probe {version}; train again" for version in report.lost_probes]
    return lines or ["nothing to repair"]


@command(examples=["kinshelf compact", "kinshelf compact --keep 3"])
@option("--keep", type=click.IntRange(1), default=1,
        help="Let --at read so many of the newest generations still.")  # fmt: skip
@shelf_options
def compact(output: Output, keep: int) -> None:
    """Give back the space of removed and replaced products, and of their downloaded pictures.

    Queries go on meanwhile, and it can be interrupted at any moment. Older generations than those
    kept cannot be asked any more; `history` still lists them.
    """
    with output.open() as shelf:
        report = shelf.compact(keep)
        build_index(output, shelf)
    if output.as_json:
        output.emit(report.as_dict())
    before, after = (size / 1e6 for size in (report.bytes_before, report.bytes_after))
    output.say(
        f"generations {report.oldest} to {report.generation} kept: {report.rows_kept} rows,"
        f" {report.rows_dropped} dropped, {before:,.1f} MB became {after:,.1f} MB"
    )
    if report.images_dropped:
        output.say(
            f"{report.images_dropped} pictures dropped that no product has any more:"
            f" {report.image_bytes_dropped / 1e6:,.1f} MB"
        )


@command(examples=[
    "kinshelf reembed --precision int8",
    "kinshelf reembed --encoder openai/clip-vit-large-patch14",
])  # fmt: skip
@encoder_options("the shelf's own", "that of a new shelf", "as the shelf has it")
@wait_option()
@shelf_options
def reembed(output: Output, **settings: Any) -> None:
    """Embed every product anew with another encoder or precision, then switch at once.

    Until then the old embeddings answer. Interrupted, it goes on where it stopped. Probes are
    dropped, since they read the old embeddings: train again afterwards. An --encoder directory with
    the files of the shelf's own is taken as its new place, and nothing is embedded.
    """
    from kinshelf.store.maintain.reembed import reembed_path

    with Interruption(output) as stop, progress(output, "embedding anew") as update:
        report = reembed_path(
            output.path,
            stop=stop,
            progress=lambda done, all_: update(done, "", all_),
            **settings,
        )
    if output.as_json:
        output.emit(report.as_dict())
    for product_id, reason in report.pictures_gone.items():
        output.warn(f"{product_id}: its picture is gone ({reason}); known by its text alone")
    if report.interrupted:
        output.say("stopped; nothing has changed yet: run the same command again to go on")
        sys.exit(130)
    if report.moved:
        output.say(f"the shelf's encoder is at {report.encoder} now; its embeddings stay")
        return
    output.say(f"{report.products} products are embedded by {report.encoder}; next: kinshelf train")
