"""Response models made of the result dataclasses, so that a field of an answer stands once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

_EXAMPLES = {
    "category": "Toys & Games | Puzzles", "probability": 0.96, "verdict": "accept", "id": "KS-0116",
}  # fmt: skip
_SAMPLED = {str, float}


class Answer(BaseModel):
    """Fields may be added."""

    model_config = ConfigDict(extra="allow")


def shape(
    result: type,
    name: str,
    doc: str,
    *,
    base: type[Answer] = Answer,
    without: tuple[str, ...] = (),
    given: Mapping[str, Any] | None = None,
) -> type[Answer]:
    """The model of a dataclass or TypedDict as JSON: its fields, each of which is there.

    `without` are fields that the JSON leaves out, or has only at times; `given` are types of those
    that it writes otherwise, or adds.
    """
    types = {field: kind for field, kind in get_type_hints(result).items() if field not in without}
    fields: dict[str, Any] = {
        field: _field(field, kind) for field, kind in (types | dict(given or {})).items()
    }
    return create_model(name, __base__=base, __doc__=doc, **fields)


def _field(name: str, kind: Any) -> tuple[Any, Any]:
    if name in _EXAMPLES and kind in _SAMPLED:
        return kind, Field(examples=[_EXAMPLES[name]])
    return kind, ...
