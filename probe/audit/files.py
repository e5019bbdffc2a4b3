"""An audit as a file: CSV or JSON Lines for machines and spreadsheets, HTML to look at."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import InputError
from kinshelf.db.files import written
from kinshelf.db.text import for_spreadsheet
from kinshelf.probe.audit.audit import Audit, AuditRow

if TYPE_CHECKING:
    from kinshelf.probe.pages.thumbnails import Thumbnails

COLUMNS = tuple(field.name for field in dataclasses.fields(AuditRow))


def check_target(path: Path) -> None:
    """Raises InputError unless an audit can be written to `path`."""
    if path.suffix.lower() not in _writers():
        raise InputError(f"cannot write an audit to {path.name!r}: use {', '.join(_writers())}")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}: make it first")


def write_audit(audit: Audit, path: Path, thumbnails: Thumbnails) -> int:
    """Write the audit by the file's suffix, `.csv`, `.jsonl` or `.html`; returns its rows.

    The file appears only when it is whole. Raises InputError.
    """
    check_target(path)
    with written(path) as temporary:
        _writers()[path.suffix.lower()](audit, temporary, thumbnails)
    return len(audit.places)


def _writers() -> dict[str, Callable[[Audit, Path, Thumbnails], None]]:
    return {".csv": _write_csv, ".jsonl": _write_jsonl, ".html": _write_html}


def _write_csv(audit: Audit, path: Path, _thumbnails: Thumbnails) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in audit.rows:
            writer.writerow([_cell(getattr(row, name)) for name in COLUMNS])


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return for_spreadsheet(" ".join(value))
    if isinstance(value, bool):
        return str(value).lower()
    return for_spreadsheet(value) if isinstance(value, str) else value


def _write_jsonl(audit: Audit, path: Path, _thumbnails: Thumbnails) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in audit.rows:
            file.write(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n")


def _write_html(audit: Audit, path: Path, thumbnails: Thumbnails) -> None:
    from kinshelf.probe.audit.page import audit_page

    path.write_text(audit_page(audit, thumbnails), encoding="utf-8")
