"""From an encoder's name to a directory with its files: local, in the hub's cache, or downloaded.

A name that is a directory is that directory. Any other is a hub id, `owner/name`: a complete copy
in the cache is used without asking the network; else the network is tried once, briefly, before a
download with its retries begins.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinshelf.db.errors import EncoderUnavailable
from kinshelf.db.host import environment
from kinshelf.store.encode.model_files import WANTED, check_complete

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMEOUT = 5.0
"""Seconds until an unreachable hub is given up."""


def locate(name: str, revision: str | None = None) -> Path:
    """The directory that holds encoder `name`, complete; `revision` counts for hub ids only.

    Raises EncoderUnavailable, in one line, if there is none or something is missing in it.
    """
    directory = Path(name).expanduser()
    if not directory.is_dir():
        return _from_hub(name, revision)
    check_complete(directory)
    return directory.resolve()


def _from_hub(name: str, revision: str | None) -> Path:
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII):
        what = "is a file" if Path(name).expanduser().exists() else "does not exist"
        message = f"{what}: give a model directory or a hub id such as openai/clip-vit-base-patch32"
        raise EncoderUnavailable(message)
    with _without_telemetry():
        return _cached(name, revision) or _download(name, revision)


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """The hub is not reported of this machine's libraries; the host's setting comes back
    afterwards."""
    with environment({"HF_HUB_DISABLE_TELEMETRY": "1"}):  # read where it is imported here first
        from huggingface_hub import constants
    before, constants.HF_HUB_DISABLE_TELEMETRY = constants.HF_HUB_DISABLE_TELEMETRY, True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download

    patterns = list(WANTED)
    try:
        found = snapshot_download(
            name, revision=revision, allow_patterns=patterns, local_files_only=True
        )
        check_complete(Path(found))
    except (OSError, EncoderUnavailable):
        return None
    return Path(found)


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, errors, snapshot_download

    # The base of its HTTP client's errors; which client that is depends on its version.
    http_error: Any = getattr(errors, "HTTPError", OSError)
    try:
        # This asks once; a download alone would retry for half a minute where there is no network.
        HfApi().model_info(name, revision=revision, timeout=_TIMEOUT)
        with _bars_on_a_terminal_only():
            found = snapshot_download(name, revision=revision, allow_patterns=list(WANTED))
    except errors.GatedRepoError as error:
        message = "its owner asks for consent: give it on its hub page, then run `hf auth login`"
        raise EncoderUnavailable(message) from error
    except errors.RepositoryNotFoundError as error:
        message = "it is no directory, and the hub knows no such model: check the spelling"
        raise EncoderUnavailable(f"{message}; for a private one run `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        message = f"the hub has no revision {revision!r} of it: see its page for those it has"
        raise EncoderUnavailable(message) from error
    except (OSError, ValueError, RuntimeError, http_error) as error:
        raise EncoderUnavailable(_unreachable(name, revision, error)) from error
    check_complete(Path(found))
    return Path(found)


@contextmanager
def _bars_on_a_terminal_only() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    silence = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if silence:
        disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            enable_progress_bars()


def _unreachable(name: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import constants

    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
    at = f" --revision {revision}" if revision else ""
    return (
        f"it is no directory, and cannot be downloaded from {constants.ENDPOINT} ({reason}); where "
        f"there is a network run `hf download {name}{at} --local-dir DIR`, and copy DIR here; "
        "`kinshelf init`, `encode` and `reembed` take it as --encoder DIR"
    )
