"""Bodies of requests: JSON, or a form with a picture in it, to a checked model and bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from kinshelf.serve.base.errors import Unusable
from kinshelf.serve.base.schemas import MAX_ATTRIBUTES
from kinshelf.serve.http.forms import read_form
from kinshelf.serve.service.service import Service

M = TypeVar("M", bound=BaseModel)

_URLENCODED = "application/x-www-form-urlencoded"
_AT_ONCE = 2**14
"""Bytes of JSON that are parsed at once; more are parsed in a thread, while others are answered."""

_SHOWN = 5
"""Problems that an answer tells."""


async def service_of(request: Request) -> Service:
    """The service that a request is for; async, or each request would take a thread for it."""
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(service_of)]


async def known_query(request: Request) -> None:
    """Let no parameter of an address be passed over. Raises Unusable."""
    known = [each.alias for each in request.scope["route"].dependant.query_params]
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            there = f"but {', '.join(known)}" if known else "and no other"
            raise Unusable(f"{name[:60]!r}: there is no such parameter here, {there}")
        if given.count(name) > 1:
            raise Unusable(f"{name!r} is given more than once")


async def read_body(
    request: Request, model: type[M], *, form_only: bool = False
) -> tuple[M, bytes | None]:
    """Read a request's fields, and the picture that came with it. Raises Unusable."""
    if packed := request.headers.get("content-encoding", "").replace("identity", "").strip():
        raise Unusable(f"a body in {packed[:60]!r} is not read here: send it unpacked")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind == "multipart/form-data" or (kind == _URLENCODED and form_only):
        fields, data = await read_form(request, kind, request.app.state.settings.max_text)
        return checked(model, _with_object(fields)), data
    if kind not in ("", "application/json") or form_only:
        wanted = "a form" if form_only else "application/json or a form"
        raise Unusable(f"{kind[:100]!r} is not read here: send {wanted}")
    body = await request.body() or b"{}"
    if len(body) <= _AT_ONCE:
        return _parsed(model, body), None
    return await request.app.state.service.run(_parsed, model, body), None


def _parsed(model: type[M], body: bytes | str) -> M:
    return checked(model, _json(body, "the body"))


def _with_object(fields: dict[str, str]) -> dict[str, Any]:
    if "attributes" not in fields:
        return fields
    return fields | {"attributes": _json(fields["attributes"], "attributes")}


def _json(text: bytes | str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{name} is no JSON: {error}") from None


def checked(model: type[M], value: Any) -> M:
    """Raises Unusable, which names the first fields that do not fit."""
    _check_names(model, value)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Unusable(described(error.errors(include_url=False, include_input=False))) from None


def _check_names(model: type[BaseModel], value: Any) -> None:
    """Before pydantic, which would describe each of a million names. Raises Unusable."""
    if not isinstance(value, dict):
        return
    if unknown := [name for name in value if name not in model.model_fields]:
        shown = ", ".join(repr(name[:60]) for name in unknown[:_SHOWN])
        more = f" and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
        known = ", ".join(model.model_fields)
        raise Unusable(f"{shown}{more}: there is no such field, but {known}")
    attributes = value.get("attributes")
    if isinstance(attributes, dict) and len(attributes) > MAX_ATTRIBUTES:
        raise Unusable(f"attributes: there are {len(attributes):,}, more than {MAX_ATTRIBUTES}")


def described(problems: Sequence[Mapping[str, Any]]) -> str:
    """Problems of pydantic's in a line, the first few of them."""
    shown = "; ".join(map(_described, problems[:_SHOWN]))
    return shown + f"; and {len(problems) - _SHOWN:,} more" * (len(problems) > _SHOWN)


def _described(problem: Mapping[str, Any]) -> str:
    place = ".".join(str(part)[:60] for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])


def body_of(model: type[BaseModel], example: Any, *, picture: bool = True) -> dict[str, Any]:
    """For `openapi_extra`: the body as JSON, and as a form that may hold a picture."""
    schema = model.model_json_schema()
    content = {"application/json": {"schema": schema, "example": example}}
    if picture:
        form = json.loads(json.dumps(schema))
        form["properties"]["image"] = {"type": "string", "format": "binary"}
        if "attributes" in form["properties"]:
            form["properties"]["attributes"] = {"type": "string", "description": "A JSON object."}
        content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}
