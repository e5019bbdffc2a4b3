"""The page for people: routes of their own, templates, and files under /static."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI


def install(app: FastAPI) -> None:
    """Add the page's routes and its files. None of them is in the OpenAPI document."""
    from kinshelf.serve.pages import browse, dashboard, files, login, query, review
    from kinshelf.serve.pages.desk import Desk

    app.state.desk = Desk()
    for part in (query, browse, review, dashboard, files, login):
        app.include_router(part.router, include_in_schema=False)
