"""The two questions: what is it, and what does it resemble."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from kinshelf.serve.base.errors import Unusable
from kinshelf.serve.base.schemas import Asked, ClassifyRequest, Example, SimilarRequest
from kinshelf.serve.http.answers import Classified, Json, Similar, answers
from kinshelf.serve.http.requests import Served, body_of, read_body
from kinshelf.serve.http.security import reader
from kinshelf.serve.service.service import Service
from kinshelf.store.query import Query

router = APIRouter(tags=["ask"], dependencies=[Depends(reader)])
_EXAMPLE = {"text": "Wooden train, 12 pieces"}


def _query(service: Service, body: Asked, data: bytes | None) -> Query:
    """What was asked, with the picture's bytes, fetched if it was given by URL."""
    fields = body.model_dump(exclude={"probe"})
    if body.id is not None:
        fields["text"] = None  # which is blank
    image = service.pictures.fetched(body.image) if body.image is not None else data
    if isinstance(body, SimilarRequest):
        for name, examples in (("like", body.like), ("unlike", body.unlike)):
            fields[name] = tuple(
                _query(service, Asked(**each.model_dump()), None) for each in examples
            )
    return Query(**fields | {"image": image})


def _asked(example: Example) -> Asked:
    return Asked(**example.model_dump())


def _check(body: Asked, data: bytes | None) -> None:
    other = body.image is not None or data is not None or bool((body.text or "").strip())
    examples = [*body.like, *body.unlike] if isinstance(body, SimilarRequest) else []
    if (body.id is not None) + other + bool(examples) != 1:
        either = ", or else like" if isinstance(body, SimilarRequest) else ""
        raise Unusable(f"give id, or else image, text or both{either}")
    for each in examples:
        _check(_asked(each), None)


@router.post(
    "/classify", **answers(Classified, 404, 409), openapi_extra=body_of(ClassifyRequest, _EXAMPLE)
)
async def classify(request: Request, service: Served) -> Response:
    """The category of a product on the shelf, or of a picture, a text or both, with evidence.

    As `kinshelf classify --json`.
    """
    body, data = await read_body(request, ClassifyRequest)
    _check(body, data)

    def work() -> Response:
        found = service.classify(_query(service, body, data), body.probe)
        return Json(found.as_dict())

    return await service.run(work)


@router.post(
    "/similar", **answers(Similar, 404, 409),
    openapi_extra=body_of(SimilarRequest, {"id": "KS-0116", "k": 5}),
)  # fmt: skip
async def similar(request: Request, service: Served) -> Response:
    """The nearest products; each neighbour as in `kinshelf similar --json`."""
    body, data = await read_body(request, SimilarRequest)
    _check(body, data)

    def work() -> Response:
        return Json(service.similar(_query(service, body, data)).as_dict())

    return await service.run(work)
