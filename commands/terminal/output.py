"""Where a command writes: data to stdout, everything else to stderr, JSON that any parser takes."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from kinshelf.face import Shelf


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's words go: data to stdout, everything else to stderr."""

    address: Path | str
    as_json: bool
    quiet: bool

    @property
    def path(self) -> Path:
        """The directory that --shelf names. Raises OnlyInDirectory if it names an engine."""
        if isinstance(self.address, Path):
            return self.address
        from kinshelf.db.errors import OnlyInDirectory

        raise OnlyInDirectory(
            "this command needs a shelf in a directory: `kinshelf copy` the shelf to one, or use"
            " the engine's own tools"
        )

    def open(self, *, wait: float = 0.0) -> Shelf:
        """The shelf that --shelf names."""
        from kinshelf.face import Shelf

        return Shelf.open(self.address, wait=wait)

    def emit(self, value: Any) -> None:
        """One line of JSON on stdout."""
        click.echo(_line(value))

    def say(self, text: str, *, style: str = "") -> None:
        """A line for a person, on stderr; what a name or a path holds is never read as markup."""
        if not self.quiet:
            self.console(stderr=True).print(
                text, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True
            )

    def warn(self, text: str) -> None:
        """A line that even --quiet shows, on stderr."""
        click.echo(text, err=True)

    def console(self, *, stderr: bool = False) -> Console:
        """A rich console; tables keep their columns when stdout is no terminal."""
        from rich.console import Console

        stream = sys.stderr if stderr else sys.stdout
        return Console(file=stream, width=None if stream.isatty() else 120)


def speak_any_text() -> None:
    """Let stdout replace what its encoding lacks: a title must not end a command half-way.

    Nor must a stream that is closed, as a daemon's may be: what goes there goes nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end
            setattr(sys, name, nowhere)
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and (out.errors == "strict" or not _is_utf_8(out)):
        out.reconfigure(errors="replace")


def _is_utf_8(stream: io.TextIOWrapper) -> bool:
    return stream.encoding.lower().replace("-", "") == "utf8"


def _line(value: Any) -> str:
    """A value as JSON that any parser takes, and that stdout can hold."""
    try:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except (TypeError, ValueError):
        value = _plain(value)
        line = json.dumps(value, ensure_ascii=False, default=str)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # of a name that is no text too, only escapes can be written
        return json.dumps(value, default=str)
    return line


def _plain(value: Any) -> Any:
    """NaN and infinities, which JSON lacks, as null; keys that are no text as text."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say_how_read(
    output: Output, path: Path, *, delimiter: str | None, encoding: str | None
) -> None:
    """State the encoding and delimiter of a file where they are not what its suffix promises."""
    from kinshelf.db.sources.readers import ReadOptions, open_rows, reading_notes

    for note in reading_notes(open_rows(path, ReadOptions(delimiter=delimiter, encoding=encoding))):
        output.say(f"{path.name}: {note}")


def show_facets(output: Output, facets: dict[str, list[dict[str, Any]]]) -> None:
    """A table a column; as JSON one line more, of `facets` alone."""
    if output.as_json and facets:
        output.emit({"facets": facets})
        return
    for name, entries in facets.items():
        from kinshelf.commands.terminal.tables import rows_table

        rows = [{name: _entry(each), "products": each["count"]} for each in entries]
        output.console().print(rows_table([name, "products"], rows))


def _entry(entry: dict[str, Any]) -> Any:
    return f"{entry['others']} others" if "others" in entry else entry["value"]
