"""The command that predicts the category of one product or many."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.help import command, option
from kinshelf.commands.options import (
    PATH,
    at_option,
    image_option,
    input_option,
    k_option,
    probe_option,
    shelf_options,
    source_options,
    text_option,
    where_option,
)
from kinshelf.commands.terminal.output import Output, say_how_read
from kinshelf.commands.terminal.progress import progress, rows_of
from kinshelf.db.errors import InputError
from kinshelf.db.files import written
from kinshelf.store.query import Query

STORED = "Products on the shelf"

if TYPE_CHECKING:
    from kinshelf.face import Shelf
    from kinshelf.probe.pages.card import Asked


@command(examples=[
    'kinshelf classify --image new.jpg --text "Wooden train, 12 pieces"',
    "kinshelf classify --input new_products.csv --json",
    'kinshelf classify --stored --where "category IS NULL" --apply accept',
])  # fmt: skip
@image_option
@text_option
@input_option
@k_option(None, "the probe's calibrated number")
@where_option
@option(
    "--stored",
    is_flag=True,
    group=STORED,
    help="Classify the products on the shelf that match --where, from their stored vectors.",
)
@option(
    "--apply",
    type=click.Choice(["accept"]),
    group=STORED,
    help="Write the categories that the policy accepts, as one operation: `kinshelf undo`"
    " takes it back.",
)
@option(
    "-o",
    "--output",
    "file",
    type=PATH,
    metavar="FILE",
    group=STORED,
    help="Write every answer to this .csv, .jsonl, .parquet or .html file. `kinshelf relabel`"
    " takes it once you have filled in `accept` or `new_category`.",
)
@option(
    "--include-predicted",
    is_flag=True,
    group=STORED,
    help="Let categories that a probe predicted vote too.",
)
@probe_option
@at_option
@option("--html", type=PATH, metavar="FILE",
        help="Write the evidence to this file too, as a page with pictures.")  # fmt: skip
@source_options
@shelf_options
def classify(
    output: Output,
    image: str | None,
    text: str | None,
    source: Path | None,
    html: Path | None,
    stored: bool,
    apply: str | None,
    file: Path | None,
    include_predicted: bool,
    **settings: Any,
) -> None:
    """Predict the category, its probability, and the products that support or contradict it.

    With --stored many products are answered at once, and nothing is changed without --apply. A
    product's own category and those of its copies do not vote for it.
    """
    asked = source is not None or image is not None or text is not None
    if stored:
        if asked or html is not None:
            raise click.UsageError("--stored takes no --image, --text, --input or --html")
        from kinshelf.commands.fill import run_stored

        names = ("k", "where", "at", "probe", "include_predicted")
        how = {name: ({"include_predicted": include_predicted} | settings)[name] for name in names}
        run_stored(output, how, file, apply=apply is not None)
        return
    if apply or file or include_predicted:
        raise click.UsageError("--apply, -o and --include-predicted go with --stored")
    if (source is None) == (image is None and text is None):
        raise click.UsageError("give --image, --text or both, or else --input FILE or --stored")
    probe: int | None = settings.pop("probe")
    how = {name: settings.pop(name) for name in ("k", "where", "at")}
    query = Query(image, text, allow_private_hosts=settings["allow_private_hosts"], **how)
    if html is not None and not html.parent.is_dir():
        raise InputError(f"there is no folder {html.parent}: make it first")
    with output.open() as shelf:
        if source is None:
            page = _classify_one(output, shelf, query, probe)
        else:
            keep = html is not None
            page = _classify_many(output, shelf, source, settings, query, probe, keep=keep)
        if html is not None:
            _write_card(output, shelf, html, page.asked)
    if page.rejected:
        sys.exit(1)


@dataclass(slots=True)
class _Answered:
    """What a page is to show, and how many rows had no answer."""

    asked: list[Asked] = field(default_factory=list)
    rejected: int = 0


def _classify_one(output: Output, shelf: Shelf, query: Query, probe: int | None) -> _Answered:
    from kinshelf.commands.terminal.card import evidence_card
    from kinshelf.probe.pages.card import Asked
    from kinshelf.probe.predict.predictor import classify as classify_one

    found = classify_one(shelf, query, probe=probe)
    if output.as_json:
        output.emit(found.as_dict())
    else:
        output.console().print(evidence_card(found))
    image = query.image if isinstance(query.image, str) else None
    return _Answered([Asked(found, image, query.text or "")])


def _classify_many(
    output: Output,
    shelf: Shelf,
    source: Path,
    settings: dict[str, Any],
    query: Query,
    probe: int | None,
    *,
    keep: bool,
) -> _Answered:
    from kinshelf.commands.terminal.card import answers_table
    from kinshelf.probe.pages.card import Asked
    from kinshelf.probe.predict.predictor import classify_source
    from kinshelf.store import AddOptions

    whole = _Answered()
    options = AddOptions(**settings)
    say_how_read(output, source, delimiter=options.delimiter, encoding=options.encoding)
    with progress(output, f"classifying {source.name}", rows_of(source, options)) as update:
        done = 0
        for batch, found in classify_source(shelf, source, options, query, probe=probe):
            for answer in found:
                if output.as_json:
                    output.emit(answer.as_dict())
            if not output.as_json:
                output.console().print(answers_table(batch.products, found))
            for reject in batch.rejects:
                output.warn(f"row {reject.position}: {reject.message}")
            whole.rejected += sum(not reject.kept for reject in batch.rejects)
            if keep:
                whole.asked += [
                    Asked(answer, product.image, product.title)
                    for product, answer in zip(batch.products, found, strict=True)
                ]
            done += len(found)
            update(done, "")
    output.say(f"{done} classified, {whole.rejected} rejected")
    return whole


def _write_card(output: Output, shelf: Shelf, html: Path, asked: list[Asked]) -> None:
    from kinshelf.probe.pages.card import card_page
    from kinshelf.probe.pages.thumbnails import Thumbnails

    page = card_page(asked, Thumbnails(shelf.path / "images"))
    with written(html) as file:  # what was asked may be no text
        file.write_text(page, encoding="utf-8", errors="replace")
    output.say(f"wrote {html}")
