"""The shapes of answers: what the CLI prints with --json, as OpenAPI tells it.

They are made of the result dataclasses, whose fields they are. They document, and a test holds
what is sent against them; sending costs no second check. Fields may be added to an answer, never
renamed.
"""

from __future__ import annotations

from typing import Any

import orjson
from fastapi.responses import JSONResponse
from pydantic import Field

from kinshelf.db.product import Product, StoredProduct
from kinshelf.probe.audit.audit import AuditRow
from kinshelf.probe.evaluate.metrics import Metrics
from kinshelf.probe.predict import prediction as results
from kinshelf.serve.http.shapes import Answer, shape
from kinshelf.serve.service.jobs import Job
from kinshelf.store.results import AddReport, Neighbour, SearchResult


class Trouble(Answer):
    """What went wrong: `type` names the error, `reason` is a short code of a picture's."""

    type: str = Field(examples=["ShelfLocked"])
    message: str = Field(examples=["toys.shelf is being written by process 12 on host"])
    reason: str | None
    retry_after: int | None = Field(description="Seconds after which asking again may help.")
    near: list[str] | None = Field(
        None, description="Of a category that no product has: those that look like it."
    )


class Failure(Answer):
    """Every failure has this shape."""

    error: Trouble


_Vote = shape(results.Vote, "Vote", "One predictor's vote.")
_ProbeVote = shape(results.Vote, "ProbeVote", "What the probe predicts.", given={"version": int})
_KnnVote = shape(results.Vote, "KnnVote", "What the neighbours predict.", given={"k": int})
_TrackRecord = shape(
    results.TrackRecord, "TrackRecord", "How often answers like this one were right."
)
_Receipt = shape(results.Receipt, "Receipt", "What an answer was computed from.")
_Neighbour = shape(
    Neighbour, "Neighbour", "A product near a query; a part is null where a modality is missing.",
    without=("row",),
)  # fmt: skip
_Evidence = shape(
    results.Evidence, "Evidence",
    "A neighbour and its part in the answer: `supports`, `runner-up` or `other`.",
    base=_Neighbour, without=("neighbour",),
)  # fmt: skip

Classified = shape(
    results.Prediction, "Classified", "As `kinshelf classify --json`; an `id` if it was asked for.",
    without=("id", "probe_version", "k", "levels"),
    given={
        "path": list[_Vote] | None, "answer": _Vote | None,  # type: ignore[valid-type]
        "probe": _ProbeVote | None, "knn": _KnnVote | None,
        "agreement_accuracy": _TrackRecord | None,
        "image_only": _Vote | None, "text_only": _Vote | None, "receipt": _Receipt,
        "neighbours": list[_Evidence],  # type: ignore[valid-type]
    },
)  # fmt: skip
Similar = shape(
    SearchResult, "Similar", "Neighbours as `kinshelf similar --json`, nearest first.",
    given={"neighbours": list[_Neighbour]},  # type: ignore[valid-type]
)  # fmt: skip
Added = shape(
    AddReport, "Added", "As `kinshelf add --json`.", without=("ids",),
    given={"reasons": dict[str, int]},
)  # fmt: skip
_Product = shape(Product, "Product", "What a product is.")
Shown = shape(
    StoredProduct, "Shown", "As `kinshelf show --json`.", base=_Product,
    without=("product", "image_hash", "content_hash"),
    given={"attributes": dict[str, Any], "category_source": str | None},
)  # fmt: skip


class Listed(Answer):
    """Products as `kinshelf list --json`; `total` match in all."""

    products: list[Shown]  # type: ignore[valid-type]
    total: int
    generation: int
    facets: dict[str, list[dict[str, Any]]]


class Removed(Answer):
    """As `kinshelf remove --json`."""

    removed: int
    generation: int


_FIGURES = ("accuracy", "macro_f1", "nll", "ece", "aurc")
_Method = shape(
    Metrics, "Method", "Metrics of one method.",
    without=("hierarchy", "agreement", "prediction_sets"),
    given=dict.fromkeys(_FIGURES, float | None) | {"per_class": dict[str, Any]},
)  # fmt: skip


class Evaluated(Answer):
    """As `kinshelf evaluate --json`; without a probe there is `knn` alone."""

    probe: _Method | None = None  # type: ignore[valid-type]
    knn: _Method  # type: ignore[valid-type]
    hybrid: _Method | None = None  # type: ignore[valid-type]


_AuditRow = shape(AuditRow, "AuditRow", "A product that something is the matter with.")


class Audited(Answer):
    """Rows and proposals as `kinshelf audit --json`."""

    generation: int
    counts: dict[str, int]
    proposals: list[dict[str, Any]]
    rows: list[_AuditRow]  # type: ignore[valid-type]


JobState = shape(
    Job, "JobState",
    "`state` is `running`, `done`, `failed` or `stopped`; `progress` the last event.",
    without=("events",), given={"progress": dict[str, Any] | None, "error": Trouble | None},
)  # fmt: skip


class JobList(Answer):
    """The newest first."""

    jobs: list[JobState]  # type: ignore[valid-type]


class ShelfInfo(Answer):
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
