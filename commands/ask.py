"""The two questions: what is it, and what does it resemble."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kinshelf.commands.common import PATH, Output, at_option, progress, shelf_options
from kinshelf.commands.ingest import source_options

if TYPE_CHECKING:
    from kinshelf.store import Shelf

K_HELP = "How many neighbours."
WHERE_HELP = "Only neighbours that match this SQL condition."


@click.command()
@click.option("--image", help="Path or URL of a picture.")
@click.option("--text", help="Title, or title and description.")
@click.option("--input", "source", type=PATH, help="A file of products, one answer each.")
@source_options
@click.option("-k", type=click.IntRange(1), help=K_HELP)
@click.option("--where", help=WHERE_HELP)
@click.option("--probe", type=int, help="Version of the probe; the newest otherwise.")
@at_option
@shelf_options
def classify(
    output: Output, image: str | None, text: str | None, source: Path | None, **settings: Any
) -> None:
    """Predict the category, with its probability and the products that vouch for it."""
    if (source is None) == (image is None and text is None):
        raise click.UsageError("give --image, --text or both, or else --input FILE")
    asked = {name: settings.pop(name) for name in ("k", "where", "probe", "at")}
    with output.open() as shelf:
        if source is None:
            private = settings["allow_private_hosts"]
            _classify_one(output, shelf, image, text, asked | {"allow_private_hosts": private})
        else:
            _classify_many(output, shelf, source, settings, asked)


def _classify_one(
    output: Output, shelf: Shelf, image: str | None, text: str | None, asked: dict[str, Any]
) -> None:
    from kinshelf.commands.card import evidence_card
    from kinshelf.probe.predict import classify as classify_one

    found = classify_one(shelf, image=image, text=text, **asked)
    if output.as_json:
        output.emit(found.as_dict())
    else:
        output.console().print(evidence_card(found))


def _classify_many(
    output: Output, shelf: Shelf, source: Path, settings: dict[str, Any], asked: dict[str, Any]
) -> None:
    from kinshelf.commands.card import answers_table
    from kinshelf.probe.predict import classify_source
    from kinshelf.store import AddOptions

    rejected = 0
    with progress(output, f"classifying {source.name}", None) as update:
        done = 0
        for batch, found in classify_source(shelf, source, AddOptions(**settings), **asked):
            for answer in found:
                if output.as_json:
                    output.emit(answer.as_dict())
            if not output.as_json:
                output.console().print(answers_table(batch.products, found))
            for reject in batch.rejects:
                output.warn(f"row {reject.position}: {reject.message}")
            rejected += sum(not reject.kept for reject in batch.rejects)
            done += len(found)
            update(done, "")
    output.say(f"{done} classified, {rejected} rejected")
    if rejected:
        sys.exit(1)


@click.command()
@click.option("--id", "product_id", help="A product on the shelf.")
@click.option("--image", help="Path or URL of a picture.")
@click.option("--text", help="Title, or title and description.")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help=K_HELP)
@click.option("--where", help=WHERE_HELP)
@click.option("--weight-image", type=click.FloatRange(0, 1), default=0.5, show_default=True,
              help="How much the picture counts; the text counts the rest.")  # fmt: skip
@at_option
@shelf_options
def similar(
    output: Output, product_id: str | None, image: str | None, text: str | None, **asked: Any
) -> None:
    """Find the products nearest to one on the shelf, or to a picture, a text or both."""
    if (product_id is None) == (image is None and text is None):
        raise click.UsageError("give --id, or else --image, --text or both")
    from kinshelf.commands.card import neighbours_table

    with output.open() as shelf:
        found = shelf.similar(product_id=product_id, image=image, text=text, **asked)
    if output.as_json:
        for neighbour in found.neighbours:
            output.emit(neighbour.as_dict())
    else:
        output.console().print(neighbours_table(found.neighbours))
        searched = "every product" if found.exhaustive else "an approximate index"
        output.say(f"generation {found.generation}, searched {searched}")
