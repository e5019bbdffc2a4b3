"""The page for people: routes of their own, templates, and files under /static."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI


def install(app: FastAPI) -> list[APIRouter]:
    """Add the page's routes and its files, which are returned; none is in the OpenAPI document."""
    from kinshelf.serve.pages import (
        browse,
        dashboard,
        editing,
        files,
        fill,
        history,
        login,
        query,
        review,
    )
    from kinshelf.serve.pages.desk import Desk
    from kinshelf.serve.pages.sheets import Sheets
    from kinshelf.serve.pages.shelf import bulk, listing, meaning
    from kinshelf.serve.pages.shelf.sidebar import Facetted

    app.state.desk, app.state.facetted, app.state.sheets = Desk(), Facetted(), Sheets()
    first = (query, listing, meaning, bulk, browse, editing, fill)
    parts = (*first, review, dashboard, history, files, login)
    routers = [part.router for part in parts]
    for router in routers:
        app.include_router(router, include_in_schema=False)
    return routers
