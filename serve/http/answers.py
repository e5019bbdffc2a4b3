"""The shapes of answers: what the CLI prints with --json, as OpenAPI tells it.

They document, and a test holds what is sent against them; sending costs no second check. Fields may
be added to an answer, never renamed.
"""

from __future__ import annotations

from typing import Any

import orjson
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Fields may be added."""

    model_config = ConfigDict(extra="allow")


class Trouble(Answer):
    """What went wrong: `type` names the error, `reason` is a short code of a picture's."""

    type: str = Field(examples=["ShelfLocked"])
    message: str = Field(examples=["toys.shelf is being written by process 12 on host"])
    reason: str | None
    retry_after: int | None = Field(description="Seconds after which asking again may help.")


class Failure(Answer):
    """Every failure has this shape."""

    error: Trouble


class Vote(Answer):
    """What one voice says."""

    category: str = Field(examples=["Toys & Games | Puzzles"])
    probability: float = Field(examples=[0.96])


class Neighbour(Answer):
    """A product near a query; a part is null where a modality is missing."""

    id: str = Field(examples=["KS-0116"])
    title: str
    category: str | None
    image: str | None
    similarity: float
    image_similarity: float | None
    text_similarity: float | None


class Evidence(Neighbour):
    """A neighbour and its part in the answer: `supports`, `runner-up` or `other`."""

    role: str
    duplicate_of: str | None


class Receipt(Answer):
    """What an answer was computed from."""

    generation: int
    fingerprint: str
    probe: int | None
    exhaustive: bool


class Classified(Answer):
    """As `kinshelf classify --json`."""

    category: str
    probability: float
    verdict: str = Field(examples=["accept"])
    prediction_set: list[str]
    coverage: float | None
    probabilities: dict[str, float]
    probe: dict[str, Any] | None
    knn: dict[str, Any]
    agreement: bool | None
    agreement_accuracy: dict[str, Any] | None
    new_category: bool
    novelty_p: float | None
    image_only: Vote | None
    text_only: Vote | None
    neighbours: list[Evidence]
    receipt: Receipt


class Similar(Answer):
    """Neighbours as `kinshelf similar --json`, nearest first."""

    neighbours: list[Neighbour]
    generation: int
    fingerprint: str
    exhaustive: bool


class Added(Answer):
    """As `kinshelf add --json`."""

    inserted: int
    updated: int
    unchanged: int
    skipped: int
    rejected: int
    image_failed: int
    generation: int
    seconds: float
    reasons: dict[str, int]
    examples: dict[str, str]


class Shown(Answer):
    """As `kinshelf show --json`."""

    id: str
    title: str
    description: str
    category: str | None
    price: float | None
    brand: str | None
    image: str | None
    split: str | None
    attributes: dict[str, Any]
    row: int
    has_image: bool
    has_text: bool
    image_error: str | None
    added: int


class Listed(Answer):
    """Products as `kinshelf list --json`; `total` match in all."""

    products: list[Shown]
    total: int
    generation: int


class Removed(Answer):
    """As `kinshelf remove --json`."""

    removed: int
    generation: int


class Method(Answer):
    """Metrics of one method."""

    accuracy: float | None
    macro_f1: float | None
    nll: float | None
    ece: float | None
    aurc: float | None
    per_class: dict[str, Any]
    n: int


class Evaluated(Answer):
    """As `kinshelf evaluate --json`; without a probe there is `knn` alone."""

    probe: Method | None = None
    knn: Method
    hybrid: Method | None = None


class Audited(Answer):
    """Rows and proposals as `kinshelf audit --json`."""

    generation: int
    counts: dict[str, int]
    proposals: list[dict[str, Any]]
    rows: list[dict[str, Any]]


class JobState(Answer):
    """`state` is `running`, `done`, `failed` or `stopped`; `progress` the last event."""

    id: int
    kind: str
    state: str
    started: float
    finished: float | None
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: Trouble | None


class JobList(Answer):
    """The newest first."""

    jobs: list[JobState]


class Told(Answer):
    """As `kinshelf info --json`."""

    generation: int
    products: int
    categorised: int
    encoder: str
    fingerprint: str
    categories: dict[str, int]
    probes: list[dict[str, Any]]


class Changes(Answer):
    """As `kinshelf history --json`, newest first."""

    history: list[dict[str, Any]]


class Health(Answer):
    """`ok`, or `draining` with status 503."""

    status: str


_FAILURES = {
    400: "Unusable HTTP.",
    401: "No token, or an unknown one.",
    403: "A token without the scope, or another site's page.",
    404: "No such product, probe, generation or job.",
    405: "That method does nothing here.",
    409: "The shelf's state forbids it.",
    413: "More bytes than are taken.",
    422: "A value that cannot be used; the message names it.",
    423: "Another process writes; the message names it.",
    429: "Too many requests.",
    503: "Shutting down, too slow, or no encoder.",
}


def fails(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses`: those failures, beside the ones that any route has."""
    chosen = sorted({400, 401, 403, 405, 413, 422, 429, 503, *statuses})
    return {status: {"model": Failure, "description": _FAILURES[status]} for status in chosen}


def answers(model: type[Answer], *statuses: int, status: int = 200) -> dict[str, Any]:
    """A route's `responses`: the answer's shape, and the failures that there are."""
    return {
        "response_model": None,
        "responses": {status: {"model": model, "description": "Done."}, **fails(*statuses)},
    }


class Json(JSONResponse):
    """JSON that any parser takes: what is no number is null."""

    def render(self, content: Any) -> bytes:
        """The body."""
        try:
            return orjson.dumps(content)
        except TypeError:  # integers of more than 64 bits, which attributes may be
            return super().render(_finite(content))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
