"""Formats of a shelf, as numbered steps from each to the next.

A step changes the manifest's fields; what they say of the log and the vectors stays readable. It
is applied when a shelf is opened and written down with the next manifest, so that opening a shelf
changes nothing on the disk. A step is never edited once released; add another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Fields = dict[str, Any]


def _to_2(fields: Fields) -> Fields:
    # Format 2 has compacted logs: they begin with base frames, and this many bytes are certain.
    return fields | {"sealed": 0}


def _to_3(fields: Fields) -> Fields:
    # Format 3 may embed all pictures of a product; those before embedded the first.
    return fields | {"pictures": "first"}


STEPS: dict[int, Callable[[Fields], Fields]] = {1: _to_2, 2: _to_3}
"""From a format to the next."""

FORMAT = 1 + max(STEPS)
"""What this version writes."""


def migrate(fields: Fields) -> Fields:
    """The manifest's fields in today's format. Raises KeyError for a format that has no step."""
    while fields["format"] != FORMAT:
        fields = STEPS[fields["format"]](fields) | {"format": fields["format"] + 1}
    return fields
