"""`kinshelf demo`: the three jobs on the sample that the package carries."""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kinshelf.commands.help import command
from kinshelf.commands.options import shelf_options
from kinshelf.commands.terminal.output import Output

if TYPE_CHECKING:
    from kinshelf.face import Shelf
    from kinshelf.probe.predict.prediction import Prediction
    from kinshelf.store.ingest.queries import QueryBatch

_SHOWN = 3
_EXAMPLES = 20


@command(examples=["kinshelf demo", "kinshelf demo --shelf sample.shelf"])
@shelf_options
def demo(output: Output) -> None:
    """Show the three jobs on a sample catalogue with a tiny CLIP, in under a minute.

    The shelf stays in the folder that --shelf names, or else in a temporary folder.
    """
    started = time.monotonic()
    with _place(output) as path:
        _Demo(output, path).run()
        output.say(f"\nall of this took {time.monotonic() - started:.0f} s")
        _farewell(output, path)


@contextmanager
def _place(output: Output) -> Iterator[Path]:
    asked = click.get_current_context().get_parameter_source("shelf_path")
    if asked is click.core.ParameterSource.DEFAULT:
        yield Path(tempfile.mkdtemp(prefix="kinshelf-demo-")) / "sample.shelf"
    else:
        yield output.path


class _Demo:
    """Each step says what it does, does it by the same calls as the commands, and shows it."""

    def __init__(self, output: Output, path: Path) -> None:
        from kinshelf.samples import catalogue_dir, tiny_clip_dir

        self.output = output
        self.path = path
        self.catalogue = catalogue_dir()
        self.encoder = tiny_clip_dir()

    def run(self) -> None:
        """All steps."""
        from kinshelf.face import Shelf

        with Shelf.create(self.path, encoder=str(self.encoder)) as shelf:
            self._add(shelf)
            self._train(shelf)
            self._classify(shelf)
            self._similar(shelf)
            self._new_category(shelf)

    def _title(self, number: int, text: str) -> None:
        self.output.say(f"\n{number}. {text}", style="bold")

    def _add(self, shelf: Shelf) -> None:
        from kinshelf.commands.terminal.tables import add_summary

        self._title(1, "Add a catalogue: pictures and titles become embeddings on the shelf")
        for line in add_summary(shelf.add(self.catalogue / "products.csv")):
            self.output.say(line)

    def _train(self, shelf: Shelf) -> None:
        from kinshelf.commands.terminal.tables import metrics_tables
        from kinshelf.probe.evaluate.held_out import evaluate_shelf
        from kinshelf.probe.train import train_shelf

        self._title(2, "Train the probe from the shelf and evaluate it on products held out")
        report = train_shelf(shelf)
        self.output.say(f"trained on {report.trained_rows} products in {report.seconds:.1f} s")
        self.output.console().print(metrics_tables(evaluate_shelf(shelf).metrics))

    def _incoming(self) -> list[dict[str, str]]:
        with (self.catalogue / "incoming.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def _classify(self, shelf: Shelf) -> None:
        from kinshelf.commands.terminal.card import evidence_card
        from kinshelf.probe.predict.predictor import classify

        self._title(3, "Classify products that the shelf has never seen, and explain")
        for row in self._incoming()[:_SHOWN]:
            text = " || ".join(part for part in (row["title"], row["description"]) if part)
            image = str(self.catalogue / row["image"]) if row["image"] else None
            found = classify(shelf, image=image, text=text or None)
            self.output.say(f"{row['title']!r}, in truth {row['true_category']}:")
            self.output.console().print(evidence_card(found))

    def _similar(self, shelf: Shelf) -> None:
        from kinshelf.commands.terminal.card import neighbours_table

        row = self._incoming()[0]
        self._title(4, f"Find what resembles {row['title']!r}, by its picture and title")
        image = str(self.catalogue / row["image"])
        found = shelf.similar(image=image, text=row["title"], k=5)
        self.output.console().print(neighbours_table(found.neighbours))

    def _new_category(self, shelf: Shelf) -> None:
        from kinshelf.probe.predict.predictor import classify_source
        from kinshelf.store import AddOptions

        rows = self._new_rows()
        name = rows[0]["category"]
        self._title(5, f"Add a category never seen before, {name!r}, without training again")
        with tempfile.TemporaryDirectory() as folder:
            first, rest = Path(folder, "first.csv"), Path(folder, "rest.csv")
            _write(first, rows[:_EXAMPLES])
            _write(rest, rows[_EXAMPLES:])
            options = AddOptions(images=self.catalogue)
            before = self._share(classify_source(shelf, rest, options), name)
            report = shelf.add(first, options)
            after = self._share(classify_source(shelf, rest, options), name)
        self.output.say(f"{report.inserted} products added, generation {report.generation}")
        self.output.say(
            f"of {len(rows) - _EXAMPLES} others of that category, {before} were put into it"
            f" before, {after} at once after; the probe is the same"
        )

    def _new_rows(self) -> list[dict[str, str]]:
        with (self.catalogue / "new_category.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @staticmethod
    def _share(answers: Iterator[tuple[QueryBatch, list[Prediction]]], name: str) -> int:
        return sum(answer.category == name for _, found in answers for answer in found)


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _farewell(output: Output, path: Path) -> None:
    output.say(f"the shelf is in {path}; try next:")
    for line in (
        "info",
        'list --where "price < 10" --limit 5',
        "similar --text 'a red toy car' -k 5",
        "history",
    ):
        output.say(f"  kinshelf {line} --shelf {path}")
    output.say("and with your own products: kinshelf init && kinshelf add products.csv")
