"""The review queue: products that a person should look at, each with what it might be instead."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.errors import EmptyShelf
from kinshelf.probe.audit.audit import Audit, AuditRow
from kinshelf.probe.audit.page import row_values
from kinshelf.probe.pages.card import evidence_values, thumbnail
from kinshelf.probe.predict.prediction import Prediction, Vote
from kinshelf.probe.predict.predictor import Predictor
from kinshelf.probe.predict.wording import notes, reason
from kinshelf.store.ingest.merge import REVIEW

if TYPE_CHECKING:
    from kinshelf.db.product import StoredProduct
    from kinshelf.probe.pages.html import PictureUris
    from kinshelf.store.base import AnyShelf

KINDS = {
    "disputed": "corrected by hand, and changed by their source since",
    "label": "labels that look wrong",
    "conflict": "pictures that do not fit their text",
    "outlier": "far from all others",
    "novel": "like nothing else",
    "disagree": "probe and neighbours, or picture and text, disagree",
    "unsure": "not sure enough to accept",
    "sure": "sure, but not yet in a category",
}
"""What an item may be in the queue for, in the words of the audit's page."""

CHOICES = 4
"""Categories offered with an item."""

UNCATEGORISED = 2000
"""The newest products without a category that are asked about."""

_OF_VERDICT = {"accept": "sure", "review": "unsure", "conflict": "disagree", "novel": "novel"}


@dataclass(frozen=True, slots=True)
class Item:
    """A product to decide on. `category` is what it had when the queue was made, `choices` the
    most probable others; `place` is its place in the audit, `found` the answer of `classify` for
    one without a category, `disputed` what a source states against what a person decided."""

    id: str
    kind: str
    category: str | None
    choices: tuple[Vote, ...]
    place: int | None = None
    found: Prediction | None = None
    disputed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ReviewQueue:
    """The items over one generation, the most suspect first; those without a category come
    after, the surest first. `older`: how many of those were not asked about, as they came before
    the newest `UNCATEGORISED`."""

    audit: Audit
    items: tuple[Item, ...]
    older: int = 0

    def counts(self) -> dict[str, int]:
        """Items of each kind that occurs, in the order of `KINDS`."""
        found = Counter(item.kind for item in self.items)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def values(self, item: Item, stored: StoredProduct, pictures: PictureUris) -> dict[str, Any]:
        """The template's values: `badges`, `lines` that name the faults, `neighbours`."""
        if item.disputed:
            return {
                "shown": thumbnail(stored.product.image, pictures),
                "badges": [{"name": "disputed", "tone": "review"}],
                "lines": item.disputed,
                "neighbours": [],
            }
        if item.place is not None:
            return row_values(self.audit, item.place, pictures)
        assert item.found is not None, "an item is of the audit or of an answer"
        verdict = item.found.verdict
        return {
            "shown": thumbnail(stored.product.image, pictures),
            "badges": [{"name": verdict, "tone": verdict}],
            "lines": [reason(item.found), *notes(item.found)],
            "neighbours": evidence_values(item.found, pictures),
        }

    def shown_ids(self, item: Item) -> list[str]:
        """The ids of all products that `values` shows."""
        if item.disputed:
            return [item.id]
        if item.found is not None:
            return [item.id, *(e.neighbour.id for e in item.found.neighbours)]
        assert item.place is not None, "an item is of the audit or of an answer"
        row = self.audit.row(item.place)
        better = [row.text_fits_better] if row.text_fits_better else []
        return [item.id, *row.evidence, *better]


def review_queue(shelf: AnyShelf, audit: Audit) -> ReviewQueue:
    """What sources dispute, the audit's suspects, and the predictions of `classify` for products
    without a category; without those that a person looked at and left as they are."""
    decided = shelf.snapshot().view.decided()
    disputed = [_disputed(stored) for stored in decided if _disputes(stored)]
    passed = {s.product.id for s in decided if REVIEW in s.decided} | {d.id for d in disputed}
    suspects = [_suspect(audit, int(place)) for place in audit.places]
    suspects += _of_predicted(shelf, audit)
    without, older = _uncategorised(shelf)
    others = [item for item in (*suspects, *without) if item and item.id not in passed]
    return ReviewQueue(audit, (*disputed, *others), older)


def _disputes(stored: StoredProduct) -> dict[str, Any]:
    """The fields that are disputed, and what the source states."""
    found = stored.decided.items()
    return {name: d["source"] for name, d in found if "disputed" in d}


def _disputed(stored: StoredProduct) -> Item:
    product, stated = stored.product, _disputes(stored)
    lines = tuple(
        f"A person corrected the field {name}; its source has changed since, to {value!r}."
        for name, value in stated.items()
    )
    choices = (Vote(stated["category"], 1.0),) if stated.get("category") else ()
    return Item(product.id, "disputed", product.category, choices, disputed=lines)


def _suspect(audit: Audit, place: int) -> Item | None:
    row = audit.row(place)
    kind = _kind(row)
    if kind is None or row.category is None:
        return None
    return Item(row.id, kind, row.category, _alternatives(audit, place), place=place)


def _of_predicted(shelf: AnyShelf, audit: Audit) -> list[Item | None]:
    """Suspects whose category a probe predicted: it is no label, and so nobody judged it."""
    rows = {audit.row(int(place)).id: int(place) for place in audit.places}
    unlabelled = [name for name, place in rows.items() if audit.row(place).category is None]
    stored = shelf.snapshot().view.by_ids(unlabelled)
    found = [(rows[name], one.product.category) for name, one in stored.items()]
    return [
        Item(audit.row(place).id, kind, category, (), place=place)
        for place, category in found
        if category is not None and (kind := _kind(audit.row(place))) is not None
    ]


def _kind(row: AuditRow) -> str | None:
    if row.is_label_issue:
        return "label"
    if row.is_conflict:
        return "conflict"
    return "outlier" if row.is_outlier else None


def _alternatives(audit: Audit, place: int) -> tuple[Vote, ...]:
    """The most probable categories but its own, as judged out of fold."""
    judged = audit.judged
    if judged is None:
        return ()
    at = int(np.searchsorted(judged.places, place))
    if at == len(judged.places) or judged.places[at] != place:
        return ()
    order = np.argsort(-judged.proba[at], kind="stable")
    others = [int(code) for code in order if code != judged.codes[at]][:CHOICES]
    return tuple(Vote(judged.classes[code], float(judged.proba[at, code])) for code in others)


def _uncategorised(shelf: AnyShelf) -> tuple[list[Item], int]:
    """The newest without a category, and how many older ones there are."""
    now = shelf.snapshot()
    every = now.select("category IS NULL")
    stored = every[-UNCATEGORISED:]
    if not stored:
        return [], 0
    try:
        predictor = Predictor.for_shelf(shelf)
    except EmptyShelf:
        return [], 0
    found = predictor.predict(now.pairs([one.row for one in stored]))
    items = [_unlabelled(one.product.id, f) for one, f in zip(stored, found, strict=True)]
    items.sort(key=lambda item: -item.choices[0].probability)
    return items, len(every) - len(stored)


def _unlabelled(product_id: str, found: Prediction) -> Item:
    likely = list(found.probabilities.items())[:CHOICES]
    choices = tuple(Vote(name, probability) for name, probability in likely)
    return Item(product_id, _OF_VERDICT[found.verdict], None, choices, found=found)
