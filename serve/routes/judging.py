"""Routes of evaluation and audit."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from kinshelf.serve.http.answers import Audited, Evaluated, Json, answers
from kinshelf.serve.http.requests import Served
from kinshelf.serve.http.security import reader

router = APIRouter(tags=["judge"], dependencies=[Depends(reader)])


@router.get("/evaluate", **answers(Evaluated, 404, 409))
async def evaluate(
    service: Served,
    split: Annotated[str, Query(max_length=100)] = "val",
    probe: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> Response:
    """Probe, kNN and hybrid side by side; as `kinshelf evaluate --json`.

    Remembered while the shelf stays as it is.
    """
    return Json(dict((await service.run(service.evaluate, split, probe)).metrics))


@router.get("/audit", **answers(Audited, 404, 409))
async def audit(
    service: Served,
    novel: bool = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**40)] = 0,
) -> Response:
    """Products that something is the matter with, the most suspect first.

    Rows and proposals are as in `kinshelf audit --json`. Remembered while the shelf stays as it is.
    """

    def work() -> dict[str, Any]:
        found = service.audit(novel=novel)
        proposals = [p.as_dict(number) for number, p in enumerate(found.proposals or (), 1)]
        rows = [asdict(row) for row in islice(found.rows, offset, offset + limit)]
        answer = {"generation": found.generation, "counts": found.counts}
        return answer | {"proposals": proposals, "rows": rows}

    return Json(await service.run(work))
