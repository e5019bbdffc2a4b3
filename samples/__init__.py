"""What the package carries so that a first run needs no network: a catalogue and a tiny CLIP."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def catalogue_dir() -> Path:
    """Where the sample catalogue lies: three tables, the truth about them, and images/."""
    return _HERE / "catalogue"


def tiny_clip_dir() -> Path:
    """Where the tiny CLIP lies, in the layout that `transformers` loads."""
    return _HERE / "tiny-clip"
