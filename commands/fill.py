"""What fills a shelf: `classify --stored`, and `suggest`, which names products to label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import PATH, shelf_options
from kinshelf.commands.terminal.output import Output
from kinshelf.commands.terminal.progress import progress

if TYPE_CHECKING:
    from kinshelf.probe.fill.report import StoredReport
    from kinshelf.probe.fill.stored import StoredAnswer

_SHOWN = 20
_STEP = 200
_COLUMNS = ("id", "title", "category", "suggested_category", "probability", "verdict")
_SUGGESTED = ("id", "title", "category", "suggested_category", "probability", "why")


def run_stored(output: Output, how: dict[str, Any], file: Path | None, *, apply: bool) -> None:
    """Classify, with a bar; print the first answers unless they are written."""
    from kinshelf.probe.fill.answers import classify_stored

    shown: list[StoredAnswer] = []
    with output.open() as shelf:
        answers = classify_stored(shelf, **how)
        answers.check(apply=apply, file=file)
        with progress(output, "classifying", len(answers)) as update:

            def each(done: int, answer: StoredAnswer) -> None:
                if done % _STEP == 0:
                    update(done)
                if output.as_json and file is None:
                    output.emit(answer.as_dict())
                elif len(shown) < _SHOWN:
                    shown.append(answer)

            report = answers.run(apply=apply, file=file, each=each)
    if output.as_json:
        if file is not None or apply:
            output.emit(report.as_dict())
    elif not (apply or file):
        _print(output, shown)
    for line in summary(report, how["where"], apply=apply):
        output.say(line)


def _print(output: Output, shown: list[StoredAnswer]) -> None:
    from kinshelf.commands.terminal.tables import fields_table, rows_table

    if len(shown) == 1:
        fields = {name: v for name, v in shown[0].as_dict().items() if v != ""}
        listed = {name: "; ".join(v) for name, v in fields.items() if isinstance(v, list)}
        output.console().print(fields_table(fields | listed))
    elif shown:
        rows = [{name: getattr(answer, name) for name in _COLUMNS} for answer in shown]
        output.console().print(rows_table(_COLUMNS, rows))


def summary(report: StoredReport, where: str | None, *, apply: bool) -> Iterator[str]:
    """The counts, what was written, and what to do next."""
    counts = ", ".join(f"{n} {name}" for name, n in report.verdicts.most_common()) or "none match"
    more = f"; the first {_SHOWN} are shown" if report.products > _SHOWN else ""
    written = f"; wrote {report.written}" if report.written else "" if apply else more
    products = "1 product" if report.products == 1 else f"{report.products} products"
    yield f"{products} classified: {counts}{written}"
    if report.would_change:
        yield f"{report.would_change} of them have another category than is predicted"
    if (done := report.applied) is not None:
        left = f", {len(done.left)} left as they were changed since" if done.left else ""
        yield (
            f"{done.applied} got the category that is predicted, {done.unchanged} had it{left};"
            f" generation {done.generation}, `kinshelf undo` takes it back"
        )
    elif not report.written:
        yield "nothing was changed"
    if following := _next_step(report, where, apply=apply):
        yield f"next: {following}"


def _next_step(report: StoredReport, where: str | None, *, apply: bool) -> str:
    if report.probe is None:
        return "kinshelf train"
    matching = f" --where {_quoted(where)}" if where else ""
    if report.accepted and not apply:
        if report.policy is None:
            return "kinshelf policy --precision 0.98, before the sure ones can be written"
        return f"kinshelf classify --stored{matching} --apply accept, for {report.accepted} of them"
    if report.written and not report.written.endswith(".html"):
        return (
            f"put yes under accept or fill in new_category, then kinshelf relabel {report.written}"
        )
    if report.products > report.verdicts["accept"]:
        return f"kinshelf classify --stored{matching} -o answers.csv, to decide on the others"
    return ""


def _quoted(text: str) -> str:
    return f'"{text}"' if '"' not in text else f"'{text}'"


@command(examples=["kinshelf suggest -n 50 -o label.csv", "kinshelf suggest --json"])
@option("-n", "count", type=click.IntRange(1), default=20, help="Name at most so many products.")
@option("--where", metavar="CONDITION", show_default="every product without a label",
        help="Take only products that match this SQL condition.")  # fmt: skip
@option("-o", "--output", "file", type=PATH, metavar="FILE",
        help="Write them to this .csv file, whose column `new_category` you fill in.")  # fmt: skip
@shelf_options
def suggest(output: Output, count: int, where: str | None, file: Path | None) -> None:
    """Name the products whose labels would teach a probe most: uncertain ones, spread out.

    Fill in `new_category`, give the file to `kinshelf relabel`, and train. Before there are labels
    of two categories, the most typical products come first.
    """
    from kinshelf.commands.terminal.tables import rows_table
    from kinshelf.probe.fill.suggest import write_suggestions

    with output.open() as shelf:
        found = shelf.suggest(count, where)
    if file is not None:
        write_suggestions(found, file)
        output.say(f"wrote {len(found)} products to {file}")
        output.say(f"next: fill in new_category, then kinshelf relabel {file}")
    elif output.as_json:
        for row in found:
            output.emit(row)
    elif found:
        output.console().print(rows_table(_SUGGESTED, found))
        output.say("next: kinshelf suggest -o label.csv, fill in new_category, kinshelf relabel")
    if not found:
        output.say("every product that matches has a label")
