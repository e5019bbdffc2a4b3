"""Bodies of requests: JSON, or a form with a picture in it, to a checked model and bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from kinshelf.serve.base.errors import Unusable
from kinshelf.serve.service.service import Service

M = TypeVar("M", bound=BaseModel)

_FIELDS = 32


async def service_of(request: Request) -> Service:
    """The service that a request is for; async, or each request would take a thread for it."""
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(service_of)]


async def read_body(request: Request, model: type[M]) -> tuple[M, bytes | None]:
    """Read a request's fields, and the picture that came with it. Raises Unusable."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind == "multipart/form-data":
        return await _form(request, model)
    if kind not in ("", "application/json"):
        raise Unusable(f"{kind[:100]!r} is not read here: send application/json or a form")
    try:
        value = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError) as error:
        raise Unusable(f"the body is no JSON: {error}") from None
    return checked(model, value), None


async def _form(request: Request, model: type[M]) -> tuple[M, bytes | None]:
    limit = request.app.state.settings.max_body
    try:
        form = await request.form(max_files=1, max_fields=_FIELDS, max_part_size=limit)
    except HTTPException as error:
        raise Unusable(f"the form cannot be read: {error.detail}") from None
    async with form_closed(form):
        picture = form.get("image")
        data = await picture.read() if isinstance(picture, UploadFile) else None
        fields = {k: v for k, v in form.multi_items() if isinstance(v, str) and v != ""}
    if isinstance(attributes := fields.get("attributes"), str):
        fields["attributes"] = _object(attributes)
    return checked(model, fields), data


@asynccontextmanager
async def form_closed(form: FormData) -> AsyncIterator[None]:
    """Closes a form's temporary files."""
    try:
        yield
    finally:
        await form.close()


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"attributes is no JSON: {error}") from None


def checked(model: type[M], value: Any) -> M:
    """Raises Unusable, which names every field that does not fit."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Unusable("; ".join(map(described, error.errors()))) from None


def described(problem: Mapping[str, Any]) -> str:
    """A problem of pydantic's in a line."""
    place = ".".join(map(str, problem["loc"]))
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
