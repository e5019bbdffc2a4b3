"""An audit as a page: each suspect product with its picture, what is wrong, and its neighbours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.text import fixed, percent
from kinshelf.probe.pages.card import neighbour, thumbnail
from kinshelf.probe.pages.html import render

if TYPE_CHECKING:
    from kinshelf.probe.audit.audit import Audit, AuditRow
    from kinshelf.probe.audit.proposals import Member, Proposal
    from kinshelf.probe.pages.html import PictureUris

SHOWN_ROWS = 300
SHOWN_MEMBERS = 12
_SIMILARITIES = ("similarity", "image_similarity", "text_similarity")


def audit_page(audit: Audit, thumbnails: PictureUris) -> str:
    """A self-contained page of the `SHOWN_ROWS` most suspect products and all proposals."""
    places = audit.places
    proposals = audit.proposals
    return render(
        "audit.html",
        counts=audit.counts,
        generation=audit.generation,
        rows=[row_values(audit, int(place), thumbnails) for place in places[:SHOWN_ROWS]],
        left_out=max(len(places) - SHOWN_ROWS, 0),
        proposals=None if proposals is None else [_proposal(p, thumbnails) for p in proposals],
    )


def row_values(audit: Audit, place: int, thumbnails: PictureUris) -> dict[str, Any]:
    """The template's values for a suspect product: its faults and its neighbours."""
    row = audit.row(place)
    near = audit.graph.places[place]
    columns = [int(column) for column in np.flatnonzero(near >= 0)[:5]]
    shown = [_neighbour(audit, place, column, thumbnails) for column in columns]
    better = int(audit.conflicts.better[place])
    if row.text_fits_better and better >= 0:
        values = _values(audit, better) | dict.fromkeys(_SIMILARITIES)
        shown.insert(0, neighbour(values, thumbnails, "text fits better", "review"))
    return {
        "row": row,
        "shown": thumbnail(row.image, thumbnails),
        "badges": _badges(row),
        "lines": _lines(audit, row),
        "neighbours": shown,
    }


def _badges(row: AuditRow) -> list[dict[str, str]]:
    kinds = (
        (row.is_label_issue, "label", "review"),
        (row.is_conflict, "picture or text", "conflict"),
        (row.is_near_duplicate, "duplicate", "novel"),
        (row.is_outlier, "outlier", "novel"),
    )
    return [{"name": name, "tone": tone} for given, name, tone in kinds if given]


def _lines(audit: Audit, row: AuditRow) -> list[str]:
    """What is the matter, in plain words."""
    lines = []
    if row.is_label_issue and row.suggested_category and row.suggested_probability is not None:
        sure = percent(row.suggested_probability, 0)
        lines.append(f"Looks like {row.suggested_category} ({sure}) rather than {row.category}.")
    if row.is_conflict:
        lines.append(_conflict(audit, row))
    if row.is_near_duplicate:
        same = "the same picture and text" if row.is_exact_duplicate else "nearly the same"
        first = row.duplicate_group
        lines.append("Kept as the first of its copies." if first == row.id
                     else f"Duplicate of {first}: {same}.")  # fmt: skip
    if row.is_outlier:
        away = fixed(row.outlier_score, 1)
        lines.append(f"Far from everything: {away} robust deviations beyond the usual distance.")
    return lines


def _conflict(audit: Audit, row: AuditRow) -> str:
    line = "Picture and text do not seem to be of one product."
    if row.image_says and row.text_says and row.image_says != row.text_says:
        line += f" The picture looks like {row.image_says}, the text says {row.text_says}."
    if row.text_fits_better:
        better = int(np.flatnonzero(audit.facts.ids == row.text_fits_better)[0])
        line += f" A text that fits the picture better: “{audit.facts.titles[better]}”."
    return line


def _neighbour(audit: Audit, place: int, column: int, thumbnails: PictureUris) -> dict[str, Any]:
    graph = audit.graph
    other = int(graph.places[place, column])
    parts = (graph.similarities, graph.image_similarities, graph.text_similarities)
    values = [float(part[place, column]) for part in parts]
    measured = {n: None if math.isnan(v) else v for n, v in zip(_SIMILARITIES, values, strict=True)}
    return neighbour(_values(audit, other) | measured, thumbnails)


def _values(audit: Audit, place: int) -> dict[str, Any]:
    columns = {"id": audit.facts.ids, "title": audit.facts.titles,
               "category": audit.facts.categories, "image": audit.facts.images}  # fmt: skip
    return {name: column[place] for name, column in columns.items()}


def _proposal(proposal: Proposal, thumbnails: PictureUris) -> dict[str, Any]:
    members = proposal.members
    return {
        "title": proposal.medoid.title or proposal.medoid.id,
        "size": len(members),
        "cohesion": proposal.cohesion,
        "ids": ", ".join(member.id for member in members),
        "members": [_member(member, thumbnails) for member in members[:SHOWN_MEMBERS]],
    }


def _member(member: Member, thumbnails: PictureUris) -> dict[str, Any]:
    values = {
        "id": member.id, "title": member.title, "category": None, "image": member.image,
    } | dict.fromkeys(_SIMILARITIES)  # fmt: skip
    return neighbour(values, thumbnails)
