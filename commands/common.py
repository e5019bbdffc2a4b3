"""What every command shares: --shelf, --json, --quiet, error lines, Ctrl-C and progress."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console

    from kinshelf.face import Shelf
    from kinshelf.store.base import AnyShelf

DEFAULT_SHELF = "kin.shelf"
PATH = click.Path(path_type=Path)


class _Address(click.ParamType["Path | str"]):
    """A directory, as a Path, or the address of a shelf on an engine, as text."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and "://" in value:
            return value
        return PATH.convert(value, param, ctx)


ADDRESS = _Address()


class Number(click.FloatRange):
    """A number within a range; click's own takes NaN, which is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value} is not a number that can be compared with.", param, ctx)
        return found


WAIT = Number(0)
"""Seconds to wait for another writer; inf is for as long as it takes."""


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


def shelf_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --shelf, --json and --quiet; the command gets an `Output` as its first argument."""
    return click.option(
        "--shelf", "shelf_path", type=ADDRESS, envvar="KINSHELF_SHELF", default=DEFAULT_SHELF,
        show_default=True,
        help="Directory of the shelf, or its address on an engine; also KINSHELF_SHELF.",
    )(print_options(command))  # fmt: skip


def print_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --json and --quiet; the parameter `shelf_path` goes into the `Output`."""

    @click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout.")
    @click.option("--quiet", is_flag=True, help="No progress and no summary on stderr.")
    @functools.wraps(command)
    def run(shelf_path: Path | str, as_json: bool, quiet: bool, **arguments: Any) -> Any:
        return command(Output(shelf_path, as_json, quiet), **arguments)

    return run


def at_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --at; the command gets `at`, None for the newest generation."""
    help_text = "As of this generation, while its rows are kept; see `kinshelf history`."
    return click.option("--at", type=click.IntRange(0), metavar="GENERATION", help=help_text)(
        command
    )


class Interruption:
    """Ctrl-C once: finish the batch and stop. Twice: stop at once."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._asked = False

    def __call__(self) -> bool:
        """Whether to stop."""
        return self._asked

    def __enter__(self) -> Interruption:
        self._before = signal.getsignal(signal.SIGINT)
        with contextlib.suppress(ValueError):  # only the main thread may set handlers
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._output.warn("stopping after this batch (Ctrl-C again: at once)")


@contextlib.contextmanager
def progress(output: Output, what: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
    """A bar on stderr with rate and time left; the body calls `update(done, note)`."""
    if output.quiet or not sys.stderr.isatty():
        yield lambda _done, _note: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    def told(name: str) -> TextColumn:
        return TextColumn(f"{{task.{name}}}", markup=False)

    columns = (
        SpinnerColumn(), told("description"), BarColumn(), MofNCompleteColumn(),
        told("fields[rate]"), TimeRemainingColumn(), told("fields[note]"),
    )  # fmt: skip
    with Progress(*columns, console=output.console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, note="", rate="")

        def update(done: int, note: str) -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{done / elapsed:,.0f}/s" if elapsed > 0.2 else ""
            bar.update(task, completed=done, note=note, rate=rate)

        yield update


def build_index(output: Output, shelf: AnyShelf, asked: Interruption | None = None) -> None:
    """Let a large shelf that grew have its index, with a bar; Ctrl-C leaves it to another day.

    `asked` is an interruption that is being listened to already. What was committed before
    stands, so neither that nor a full disk is a failure of the command.
    """
    from kinshelf.db.errors import KinshelfError

    shelf.release_encoder()  # the index needs the room
    listening = contextlib.nullcontext(asked) if asked else Interruption(output)
    with listening as stop, progress(output, "indexing", None) as update:
        try:
            shelf.build_index(stop=stop, progress=lambda done, all_: update(done, f"of {all_}"))
        except (KinshelfError, OSError) as error:
            output.warn(f"no index was built, searches stay exact: {error}")
