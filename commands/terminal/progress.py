"""What a long command shows and listens to: a progress bar, Ctrl-C, the building of an index."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from kinshelf.commands.terminal.output import Output
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.results import AddOptions


class Update(Protocol):
    """Shows how far a work is, and of how much."""

    def __call__(self, done: float, note: str = "", of: int | None = None, /) -> None: ...


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
def progress(output: Output, what: str, total: int | None = None) -> Iterator[Update]:
    """A bar on stderr with a rate and the time left. The body calls `update(done, note)`,
    or `update(done, note, total)` where only the work itself tells how much there is."""
    if output.quiet or not sys.stderr.isatty():
        yield lambda _done, _note="", _total=None: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    def field(name: str) -> TextColumn:
        return TextColumn(f"{{task.{name}}}", markup=False)

    columns = (
        SpinnerColumn(), field("description"), BarColumn(), MofNCompleteColumn(),
        field("fields[rate]"), TimeRemainingColumn(), field("fields[note]"),
    )  # fmt: skip
    with Progress(*columns, console=output.console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, note="", rate="")

        def update(done: float, note: str = "", of: int | None = None) -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = _rate(done / elapsed) if elapsed > 0.2 else ""
            bar.update(task, completed=done, note=note, rate=rate, total=of or total)

        yield update


def _rate(speed: float) -> str:
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s"


def rows_of(source: Path, options: AddOptions) -> int | None:
    """How many rows are to come, for a bar's time left; extrapolated for a large file."""
    from kinshelf.db.sources.readers import count_rows
    from kinshelf.store.ingest.add import reading_options

    return count_rows(source, reading_options(options))


def build_index(output: Output, shelf: AnyShelf, asked: Interruption | None = None) -> None:
    """Let a large shelf that grew have its index, with a bar; Ctrl-C leaves it to another day.

    `asked` is an interruption that is being listened to already. What was committed before
    stands, so neither that nor a full disk is a failure of the command.
    """
    from kinshelf.db.errors import KinshelfError

    shelf.release_encoder()  # the index needs the room
    listening = contextlib.nullcontext(asked) if asked else Interruption(output)
    with listening as stop, progress(output, "indexing") as update:
        try:
            built = shelf.build_index(stop=stop, progress=lambda done, all_: update(done, "", all_))
            shortfall = shelf.info()["index"].get("shortfall") if built else None
        except (KinshelfError, OSError) as error:
            output.warn(f"no index was built, searches stay exact: {error}")
            return
    if shortfall:
        output.warn(f"warning: {shortfall}")
