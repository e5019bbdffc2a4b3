"""`classify --html`: the evidence card as a page with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kinshelf.probe.pages import render

if TYPE_CHECKING:
    from kinshelf.probe.predict import Evidence, Prediction
    from kinshelf.probe.thumbnails import Thumbnails

SUPPORTS, AGAINST = 3, 2
"""Neighbours of the predicted category and of others that a card shows."""

SHOWN_ANSWERS = 200
"""More would make a page that no browser likes."""

_ROLES = {
    "supports": ("for", "accept"),
    "runner-up": ("against", "conflict"),
    "other": ("other", ""),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer, what was asked (picture and title, either may be missing), and the reason."""

    found: Prediction
    image: str | None
    title: str
    reason: str


def card_page(asked: Sequence[Asked], thumbnails: Thumbnails) -> str:
    """A self-contained page of the first `SHOWN_ANSWERS` answers."""
    shown = [_answer(one, thumbnails) for one in asked[:SHOWN_ANSWERS]]
    receipt = asdict(asked[0].found.receipt) if asked else None
    left_out = max(len(asked) - SHOWN_ANSWERS, 0)
    return render("card.html", answers=shown, receipt=receipt, left_out=left_out)


def _answer(one: Asked, thumbnails: Thumbnails) -> dict[str, Any]:
    chosen = chosen_evidence(one.found.neighbours)
    return {
        "found": one.found,
        "title": one.title,
        "reason": one.reason,
        "shown": thumbnail(one.image, thumbnails),
        "neighbours": [_neighbour(evidence, thumbnails) for evidence in chosen],
        "voices": _voices(one.found),
    }


def chosen_evidence(neighbours: Sequence[Evidence]) -> list[Evidence]:
    """The nearest that support the answer, then the nearest that speak against it."""
    supports = [e for e in neighbours if e.role == "supports"][:SUPPORTS]
    runners = [e for e in neighbours if e.role == "runner-up"]
    others = [e for e in neighbours if e.role == "other"]
    return supports + (runners + others)[:AGAINST]


def thumbnail(image: str | None, thumbnails: Thumbnails) -> dict[str, Any]:
    """What a template shows of a picture: its data URI, or why there is none."""
    return {"uri": thumbnails.uri(image), "problem": thumbnails.problem(image)}


def neighbour(
    values: Mapping[str, Any], thumbnails: Thumbnails, role: str = "", tone: str = ""
) -> dict[str, Any]:
    """What a template shows of a neighbour given as `Neighbour.as_dict` has it."""
    shown = thumbnail(values["image"], thumbnails)
    return {**values, "role": role, "tone": tone, "shown": shown}


def _neighbour(evidence: Evidence, thumbnails: Thumbnails) -> dict[str, Any]:
    role, tone = _ROLES[evidence.role]
    return neighbour(evidence.neighbour.as_dict(), thumbnails, role, tone)


def _voices(found: Prediction) -> list[dict[str, Any]]:
    voices = [
        (f"probe {found.probe_version}", found.probe),
        (f"{found.k} neighbours", found.knn),
        ("picture alone", found.image_only),
        ("text alone", found.text_only),
    ]
    return [{"name": name, **asdict(vote)} for name, vote in voices if vote is not None]
