"""Answers as a file: CSV, JSON Lines or Parquet for machines and spreadsheets, HTML to look at."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import InputError
from kinshelf.db.files import written
from kinshelf.db.text import for_spreadsheet
from kinshelf.probe.fill.report import VERDICTS
from kinshelf.probe.fill.stored import ACCEPTED, BLOCK, StoredAnswer

if TYPE_CHECKING:
    import pyarrow as pa

    from kinshelf.probe.fill.report import StoredReport

COLUMNS = StoredAnswer.COLUMNS
PAGE = 300
"""Products that a page shows, those first that need a person."""
_LISTS = ("prediction_set", "neighbours")


def check_target(path: Path) -> None:
    """Raises InputError unless answers can be written to `path`."""
    if path.suffix.lower() not in _writers():
        raise InputError(f"cannot write answers to {path.name!r}: use {', '.join(_writers())}")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}: make it first")


def write_answers(answers: Iterator[StoredAnswer], path: Path, report: StoredReport) -> None:
    """Write all answers by the file's suffix, as they come; the file appears when it is whole.

    `report` counts them meanwhile. Raises InputError.
    """
    check_target(path)
    with written(path) as temporary:
        _writers()[path.suffix.lower()](answers, temporary, report)


Writer = Callable[[Iterator[StoredAnswer], Path, "StoredReport"], None]


def _writers() -> dict[str, Writer]:
    return {
        ".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet,
        ".html": _write_html,
    }  # fmt: skip


def _write_csv(answers: Iterator[StoredAnswer], path: Path, _report: StoredReport) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for answer in answers:
            writer.writerow([_cell(value) for value in answer.as_dict().values()])


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return for_spreadsheet("; ".join(value))
    return for_spreadsheet(value) if isinstance(value, str) else value


def _write_jsonl(answers: Iterator[StoredAnswer], path: Path, _report: StoredReport) -> None:
    with path.open("w", encoding="utf-8") as file:
        for answer in answers:
            file.write(json.dumps(answer.as_dict(), ensure_ascii=False) + "\n")


def _write_parquet(answers: Iterator[StoredAnswer], path: Path, _report: StoredReport) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    layout = _schema()
    with pq.ParquetWriter(path, layout, compression="zstd") as writer:
        while rows := [answer.as_dict() for answer in islice(answers, BLOCK)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=layout))


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = dict.fromkeys(COLUMNS, pa.string())
    kinds |= dict.fromkeys(_LISTS, pa.list_(pa.string()))
    kinds |= dict.fromkeys(("probability", "novelty_p"), pa.float64())
    return pa.schema(list(kinds.items()))


def _write_html(answers: Iterator[StoredAnswer], path: Path, report: StoredReport) -> None:
    from kinshelf.probe.pages.html import render

    shown: list[StoredAnswer] = []
    sure: list[StoredAnswer] = []
    for answer in answers:
        kept = sure if answer.verdict == ACCEPTED else shown
        if len(kept) < PAGE:
            kept.append(answer)
    rows = (shown + sure)[:PAGE]
    counts = {name: report.verdicts[name] for name in VERDICTS}
    page = render(
        "stored.html", counts=counts, report=report, rows=rows, left_out=report.products - len(rows)
    )
    path.write_text(page, encoding="utf-8", errors="replace")
