"""`classify --html`: the evidence card as a page with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kinshelf.probe.pages import render
from kinshelf.probe.wording import Shown, chosen_evidence, notes, reason, voices

if TYPE_CHECKING:
    from kinshelf.probe.answer import Prediction
    from kinshelf.probe.thumbnails import Thumbnails

SHOWN_ANSWERS = 200
"""More would make a page that no browser likes."""

_ROLES = {
    "supports": ("for", "accept"),
    "runner-up": ("against", "conflict"),
    "other": ("other", ""),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer, and what was asked: picture and title, either may be missing."""

    found: Prediction
    image: str | None
    title: str


def card_page(asked: Sequence[Asked], thumbnails: Thumbnails) -> str:
    """A self-contained page of the first `SHOWN_ANSWERS` answers."""
    shown = [_answer(one, thumbnails) for one in asked[:SHOWN_ANSWERS]]
    receipt = asdict(asked[0].found.receipt) if asked else None
    left_out = max(len(asked) - SHOWN_ANSWERS, 0)
    return render("card.html", answers=shown, receipt=receipt, left_out=left_out)


def _answer(one: Asked, thumbnails: Thumbnails) -> dict[str, Any]:
    return {
        "found": one.found,
        "title": one.title,
        "reason": reason(one.found),
        "notes": notes(one.found),
        "shown": thumbnail(one.image, thumbnails),
        "neighbours": [_neighbour(n, thumbnails) for n in chosen_evidence(one.found.neighbours)],
        "voices": [{"name": name, **asdict(vote)} for name, vote in voices(one.found)],
    }


def thumbnail(image: str | None, thumbnails: Thumbnails) -> dict[str, Any]:
    """What a template shows of a picture: its data URI, or why there is none."""
    return {"uri": thumbnails.uri(image), "problem": thumbnails.problem(image)}


def neighbour(
    values: Mapping[str, Any],
    thumbnails: Thumbnails,
    role: str = "",
    tone: str = "",
    folded: str = "",
) -> dict[str, Any]:
    """What a template shows of a neighbour given as `Neighbour.as_dict` has it."""
    shown = thumbnail(values["image"], thumbnails)
    return {**values, "role": role, "tone": tone, "folded": folded, "shown": shown}


def _neighbour(shown: Shown, thumbnails: Thumbnails) -> dict[str, Any]:
    role, tone = _ROLES[shown.evidence.role]
    values = shown.evidence.neighbour.as_dict()
    return neighbour(values, thumbnails, role, tone, shown.folded)
