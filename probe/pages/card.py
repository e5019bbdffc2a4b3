"""`classify --html`: the evidence card as a page with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kinshelf.probe.pages.html import render
from kinshelf.probe.predict.wording import Shown, chosen_evidence, notes, predictors, reason

if TYPE_CHECKING:
    from kinshelf.probe.pages.html import PictureUris
    from kinshelf.probe.predict.prediction import Prediction

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


def card_page(asked: Sequence[Asked], thumbnails: PictureUris) -> str:
    """A self-contained page of the first `SHOWN_ANSWERS` answers."""
    shown = [answer_values(one, thumbnails) for one in asked[:SHOWN_ANSWERS]]
    receipt = asdict(asked[0].found.receipt) if asked else None
    left_out = max(len(asked) - SHOWN_ANSWERS, 0)
    return render("card.html", answers=shown, receipt=receipt, left_out=left_out)


def answer_values(one: Asked, thumbnails: PictureUris) -> dict[str, Any]:
    """The values of the template `answer.html`."""
    return {
        "found": one.found,
        "title": one.title,
        "reason": reason(one.found),
        "notes": notes(one.found),
        "shown": thumbnail(one.image, thumbnails),
        "neighbours": evidence_values(one.found, thumbnails),
        "voices": [{"name": name, **asdict(vote)} for name, vote in predictors(one.found)],
    }


def thumbnail(image: str | None, thumbnails: PictureUris) -> dict[str, Any]:
    """The template's values for a picture: its URI, or the reason why there is none."""
    return {"uri": thumbnails.uri(image), "problem": thumbnails.problem(image)}


def neighbour(
    values: Mapping[str, Any],
    thumbnails: PictureUris,
    role: str = "",
    tone: str = "",
    folded: str = "",
) -> dict[str, Any]:
    """The template's values for a neighbour, from `Neighbour.as_dict`."""
    shown = thumbnail(values.get("matched") or values["image"], thumbnails)
    if shown["uri"] is None:
        shown = thumbnail(values["image"], thumbnails)
    return {**values, "role": role, "tone": tone, "folded": folded, "shown": shown}


def evidence_values(found: Prediction, thumbnails: PictureUris) -> list[dict[str, Any]]:
    """The neighbours that a card shows, each with its part in the answer."""
    return [_neighbour(shown, thumbnails) for shown in chosen_evidence(found.neighbours)]


def _neighbour(shown: Shown, thumbnails: PictureUris) -> dict[str, Any]:
    role, tone = _ROLES[shown.evidence.role]
    values = shown.evidence.neighbour.as_dict()
    return neighbour(values, thumbnails, role, tone, shown.folded)
