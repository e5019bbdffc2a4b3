"""What kinshelf goes on without is reported to the loggers under `kinshelf`, and to them alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

logging.getLogger("kinshelf").addHandler(logging.NullHandler())  # silent unless the host listens


@contextmanager
def tolerated(
    *kinds: type[BaseException], room: str, then: str, level: int = logging.WARNING
) -> Iterator[None]:
    """Go on after an error of these kinds, as `contextlib.suppress` does, and log it.

    `room` names the logger, `kinshelf.ROOM`; `then` is what follows from the error.
    """
    try:
        yield
    except kinds as error:
        report(room, then, error, level)


def report(room: str, then: str, error: BaseException, level: int = logging.WARNING) -> None:
    """Log an error that nobody is raised, and what follows from it."""
    logger = logging.getLogger(f"kinshelf.{room}")
    logger.log(level, "%s (%s: %s)", then, type(error).__name__, error)
