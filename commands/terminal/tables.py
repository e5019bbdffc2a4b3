"""What a person sees: tables and summaries for the terminal, drawn by rich."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.store import AddReport

_NUMBERS = (int, float)
_LARGE = 1e9
"""Numbers from here on are shown as powers of ten, so that no column pushes the others out."""
_NARROW = 12
"""Cells that a column keeps at least."""
_WHOLE = ("id", "suggested id", "duplicate of", "generation", "price")
"""Columns that are never cut: what stands there is typed again."""


class Cut:
    """A text on one line, cut in the middle where it is a path, else at its end."""

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.split())

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        width = cell_len(self.text)
        return Measurement(min(width, _NARROW), width).with_maximum(options.max_width)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(cut(self.text, options.max_width), no_wrap=True, overflow="ellipsis")


def cut(text: str, width: int) -> str:
    """A path ("A | B | C") without its middle, then its last part alone, where it is too wide."""
    first, *rest = text.split(" | ")
    if cell_len(text) <= width or not rest:
        return text
    last = rest[-1]
    shorter = f"{first} | … | {last}" if len(rest) > 1 else text
    return shorter if cell_len(shorter) <= width else f"… | {last}"


def cell(value: Any) -> Text:
    """A value as plain text: what a user's data holds is never read as markup."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, float):
        short = abs(value) < 1 or abs(value) >= _LARGE
        return Text(f"{value:.4g}" if short else f"{value:,.2f}")
    if isinstance(value, datetime.datetime):
        return Text(value.isoformat(timespec="seconds"))
    return Text(str(value))


def plain_table(*columns: str, title: str | None = None) -> Table:
    """A table without a frame."""
    table = Table(title=title, box=None, header_style="bold", title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    return table


def fields_table(fields: dict[str, Any]) -> Table:
    """One line a field."""
    table = plain_table("field", "value")
    for name, value in fields.items():
        table.add_row(Text(name, style="bold"), cell(value))
    return table


def rows_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line a row; numbers to the right."""
    table = plain_table(*columns)
    for column, name in zip(table.columns, columns, strict=True):
        values = [row[name] for row in rows if row[name] is not None]
        if values and all(isinstance(value, _NUMBERS) for value in values):
            column.justify = "right"
        column.no_wrap = name in _WHOLE
    for row in rows:
        table.add_row(*(_fitted(name, row[name]) for name in columns))
    return table


def _fitted(column: str, value: Any) -> Text | Cut:
    return Cut(value) if isinstance(value, str) and column not in _WHOLE else cell(value)


def products_table(found: Sequence[StoredProduct]) -> Table:
    """Id, title, category, price and picture of each product."""
    rows = [
        {
            "id": p.product.id,
            "title": p.product.title,
            "category": p.product.category,
            "price": p.product.price,
            "image": "yes" if p.has_image else p.image_error or "no",
        }
        for p in found
    ]
    return rows_table(["id", "title", "category", "price", "image"], rows)


def info_tables(found: dict[str, Any]) -> Group:
    """Counts and settings, then categories, then rejects."""
    flat = {k: v for k, v in found.items() if not isinstance(v, dict | list)}
    tables: list[Any] = [fields_table(flat)]
    for name in ("categories", "rejects"):
        if found[name]:
            rows = [{name: k, "products": v} for k, v in found[name].items()]
            tables += ["", rows_table([name, "products"], rows)]
    if found["category_spellings"]:
        merges = found["category_spellings"].items()
        rows = [{"category": name, "may be": usual} for name, usual in merges]
        tables += ["", rows_table(["category", "may be"], rows)]
        tables.append(plain_heading("kinshelf audit -o audit.csv and relabel audit.csv merge them"))
    if found["probes"]:
        names = ["probe", "generation", "trained_on", "classes", "val_accuracy"]
        rows = [
            p | {"probe": p["version"], "val_accuracy": p["metrics"].get("val_accuracy")}
            for p in found["probes"]
        ]
        tables += ["", rows_table(names, rows)]
    return Group(*tables)


def plain_heading(text: str) -> Text:
    """A line above a table."""
    return Text(text, style="bold")


def add_summary(report: AddReport) -> list[str]:
    """What became of the rows, and why some were left out."""
    counts = ("inserted", "updated", "unchanged", "skipped", "rejected")
    shown = [f"{getattr(report, name)} {name}" for name in counts if getattr(report, name)]
    lines = [f"{', '.join(shown) or 'nothing to add'}; generation {report.generation}"]
    if report.fields:
        fields = ", ".join(f"{name} {count}" for name, count in report.fields.most_common(_SHOWN))
        more = len(report.fields) - _SHOWN
        lines.append(f"fields changed: {fields}" + (f" and {more} more" if more > 0 else ""))
    if report.decisions_kept:
        lines.append(f"{report.decisions_kept} values that a person decided were kept")
    if report.disputed:
        lines.append(
            f"{report.disputed} products are disputed: their source has changed what was corrected."
            " See the review of `kinshelf serve`"
        )
    encoded = report.encoded_images + report.encoded_texts
    lines.append(
        f"encoded {report.encoded_images} images and {report.encoded_texts} texts"
        f" in {report.seconds:.1f} s"
        if encoded
        else f"nothing to encode, {report.seconds:.1f} s"
    )
    if report.truncated_texts:
        lines.append(f"{report.truncated_texts} texts are longer than the encoder reads")
    if report.image_failed:
        lines.append(f"{report.image_failed} kept as text-only: their picture could not be used")
    lines += report.notes
    for reason, count in report.reasons.most_common():
        lines.append(f"  {reason} x {count}, such as: {report.examples[reason]}")
    if report.training_set is not None:
        lines += report.training_set.lines()
    return lines


_SHOWN = 8
_METRICS = ("accuracy", "macro_f1", "nll", "ece", "aurc", "n")


def metrics_tables(metrics: dict[str, Any]) -> Group:
    """The methods side by side, then the hybrid's categories."""
    methods = [name for name in ("probe", "knn", "hybrid") if metrics.get(name)]
    rows = [
        {"method": name} | {metric: metrics[name][metric] for metric in _METRICS}
        for name in methods
    ]
    best = methods[-1]
    classes = [{"category": name} | row for name, row in metrics[best]["per_class"].items()]
    names = ["category", "precision", "recall", "f1", "support"]
    heading = plain_heading(f"{best}, by category")
    whole = rows_table(["method", *_METRICS], rows)
    return Group(whole, "", *_by_level(metrics[best]), heading, rows_table(names, classes))


def _by_level(metrics: dict[str, Any]) -> list[Any]:
    """How right the answers are at each level of the categories, if they have several."""
    found = metrics.get("hierarchy")
    if found is None:
        return []
    levels = enumerate(found["accuracy_by_level"], start=1)
    row = {f"level {i}": accuracy for i, accuracy in levels}
    row |= {name: found[name] for name in ("precision", "recall")}
    return [plain_heading("accuracy by level; precision and recall with what each stands under"),
            rows_table(list(row), [row]), ""]  # fmt: skip
