"""Commands that look after a shelf: verify, compact."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from kinshelf.commands.common import Output, build_index, shelf_options

if TYPE_CHECKING:
    from kinshelf.store.maintain.repair import RepairReport
    from kinshelf.store.results import Finding


@click.command()
@click.option("--repair", is_flag=True, help="Rebuild what is derived, set damaged files aside in"
              " quarantine/, and keep the rest.")  # fmt: skip
@shelf_options
def verify(output: Output, repair: bool) -> None:
    """Check every layer of the shelf; exits with 1 if damage was found and not repaired.

    One line a finding, with its remedy. Remains of interrupted writes are notes, no damage.
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
        for line in _told(report):
            click.echo(line)
    _print(output, left)
    if left:
        sys.exit(1)
    output.say(f"{output.path}: generation {report.generation}, no damage left")


def _told(report: RepairReport) -> list[str]:
    lines = list(report.done)
    if report.lost_generations:
        first, last = report.lost_generations
        lines.append(f"lost: generations {first} to {last}; what they changed is not there")
    if report.lost_products:
        lines.append(f"lost: products {', '.join(report.lost_products)}; add them again")
    lines += [f"lost: probe {version}; train again" for version in report.lost_probes]
    return lines or ["nothing to repair"]


@click.command()
@click.option("--keep", type=click.IntRange(1), default=1, show_default=True,
              help="How many of the newest generations --at can still ask for.")  # fmt: skip
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
