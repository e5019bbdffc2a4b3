"""What an answer says in words: the verdict's reason in one sentence, and what else to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kinshelf.db.text import LEVEL, percent
from kinshelf.probe.evaluate.metrics import Metrics, PredictionSets
from kinshelf.probe.predict.prediction import Evidence, Levels, Prediction, Vote
from kinshelf.probe.predict.verdict import modalities_conflict

SUPPORTS, AGAINST = 3, 2
"""Neighbours of the predicted category and of others that a card shows."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A neighbour on a card, and how many all but equal ones it stands for."""

    evidence: Evidence
    duplicates: int

    @property
    def folded(self) -> str:
        """ "and 4 duplicates", or ""."""
        if not self.duplicates:
            return ""
        return "and 1 duplicate" if self.duplicates == 1 else f"and {self.duplicates} duplicates"


def chosen_evidence(neighbours: Sequence[Evidence]) -> list[Shown]:
    """The nearest that support the answer, then the nearest that contradict it, those of the
    runner-up before others; duplicates of a neighbour are counted with it."""
    own = [e for e in neighbours if e.duplicate_of is None]
    supports = [e for e in own if e.role == "supports"][:SUPPORTS]
    runners = [e for e in own if e.role == "runner-up"]
    others = [e for e in own if e.role == "other"]
    folded = [e.duplicate_of for e in neighbours]
    shown = supports + (runners + others)[:AGAINST]
    return [Shown(e, folded.count(e.neighbour.id)) for e in shown]


class Answer(Protocol):
    """What the reason of a verdict is worded from; `Prediction` documents each."""

    @property
    def category(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def probe(self) -> Vote | None: ...
    @property
    def knn(self) -> Vote | None: ...
    @property
    def image_only(self) -> Vote | None: ...
    @property
    def text_only(self) -> Vote | None: ...
    @property
    def novelty_p(self) -> float | None: ...
    @property
    def is_new_category(self) -> bool: ...
    @property
    def agreement(self) -> bool | None: ...
    @property
    def looked_at(self) -> int: ...
    def count_of(self, category: str, /) -> int: ...


def reason(found: Answer) -> str:
    """One sentence of why the verdict is what it is."""
    if found.verdict == "novel" and found.novelty_p is not None:
        rarity = f"only 1 in {round(1 / found.novelty_p)} of the shelf's own products"
        return f"It is unlike what is on the shelf: {rarity} lies as far from the others."
    if found.verdict == "conflict" and modalities_conflict((found.image_only, found.text_only)):
        return _modalities(found)
    if found.probe is None or found.knn is None:
        return _alone(found)
    if found.is_new_category:
        return (
            f"{leaf(found.category)} is newer than the probe, which never saw it, so its own"
            f" products support it: {_support(found)}."
        )
    if not found.agreement:
        return _disagreement(found, found.probe.category, found.knn.category)
    unsure = "" if found.verdict == "accept" else ", but not surely enough to go without review"
    return f"Probe and neighbours agree{unsure}: {_support(found)}."


def _alone(found: Answer) -> str:
    """One sentence where the probe or the neighbours are missing."""
    if found.probe is not None:
        return "No product with a category matches, so the probe answers alone."
    return (
        f"No probe is trained yet, so the neighbours answer alone: {_support(found)}."
        " Nothing is accepted before `kinshelf train`."
    )


def _disagreement(found: Answer, probe: str, knn: str) -> str:
    """The count that a person can check beside the weighted share, which may differ."""
    predicted, voted = apart(probe, knn)
    sure = ", both sure of it" if found.verdict == "conflict" else ""
    counts = f"{found.count_of(knn)} in {voted} and {found.count_of(probe)} in {predicted}"
    return (
        f"The probe predicts {predicted}, the neighbours, weighted by similarity, {voted}{sure}:"
        f" of the {found.looked_at} nearest products looked at, {counts}."
    )


def notes(found: Prediction) -> list[str]:
    """What else a person should know, a sentence each."""
    sentences = []
    if found.coverage is not None and len(found.prediction_set) > 1:
        names = "; ".join(_short(found.prediction_set))
        sentences.append(f"With {percent(found.coverage, 0)} coverage it is one of: {names}.")
    if found.levels is not None and len(found.levels.path) > 1:
        sentences.append(_by_level(found.levels))
    if modalities_conflict((found.image_only, found.text_only)) and found.verdict != "conflict":
        sentences.append(_modalities(found))
    if found.is_new_category and found.verdict in ("novel", "conflict"):
        sentences.append(f"{leaf(found.category)} is newer than the probe, which never saw it.")
    record = found.agreement_accuracy
    if record is not None and not found.is_new_category:
        sentences.append(track_record(record.accuracy, record.n, agreed=bool(found.agreement)))
    return sentences


def _by_level(levels: Levels) -> str:
    path = ", ".join(f"{leaf(v.category)} {percent(v.probability)}" for v in levels.path)
    sure = f"down to {leaf(levels.answer.category)}" if levels.answer else "of none of them"
    return f"By level: {path}; it is sure {sure}."


def track_record(accuracy: float | None, n: int, *, agreed: bool) -> str:
    """How right the answers were where probe and neighbours agreed, or did not."""
    how = "agreed" if agreed else "disagreed"
    if accuracy is None:
        return f"Probe and neighbours {how} on none of the held-out products."
    share = f"{percent(accuracy)} of {n} held-out answers were right"
    return f"When probe and neighbours {how}, {share}."


def set_record(sets: PredictionSets) -> str:
    """How well prediction sets kept their promise."""
    wanted, found = percent(sets["wanted"], 0), percent(sets["coverage"])
    return (
        f"Prediction sets meant to hold the category {wanted} of the time did so for {found} of"
        f" {sets['n']} products, with {sets['size']:.2f} categories on average."
    )


def evaluation_notes(metrics: Metrics) -> list[str]:
    """What an evaluation of the hybrid reports beside its figures, a sentence each."""
    sentences = []
    if agreement := metrics.get("agreement"):
        agree, not_agree = agreement["agree"], agreement["disagree"]
        sentences.append(track_record(agree["accuracy"], agree["n"], agreed=True))
        sentences.append(track_record(not_agree["accuracy"], not_agree["n"], agreed=False))
    if sets := metrics.get("prediction_sets"):
        sentences.append(set_record(sets))
    return sentences


def _support(found: Answer) -> str:
    named = leaf(found.category)
    shown = f"{found.count_of(found.category)} of the {found.looked_at}"
    return f"{shown} nearest products looked at are in {named}"


def _modalities(found: Answer) -> str:
    assert found.image_only is not None, "a conflict has both"
    assert found.text_only is not None, "a conflict has both"
    image, text = apart(found.image_only.category, found.text_only.category)
    return f"The picture looks like {image}, the text like {text}."


def leaf(category: str | None) -> str:
    """The last step of a category path."""
    return (category or "-").rpartition(LEVEL)[2]


def apart(one: str, other: str) -> tuple[str, str]:
    """Two categories by their last steps, or in full where these are the same."""
    short = _short([one, other])
    return short[0], short[1]


def _short(categories: Sequence[str]) -> list[str]:
    short = [leaf(category) for category in categories]
    return short if len(set(short)) == len(short) else list(categories)


def predictors(found: Prediction) -> list[tuple[str, Vote]]:
    """The prediction of each source beside the answer."""
    sentences = [
        (f"probe {found.probe_version}", found.probe),
        (f"{found.k} neighbours, weighted", found.knn),
        ("picture alone", found.image_only),
        ("text alone", found.text_only),
    ]
    return [(name, vote) for name, vote in sentences if vote is not None]


def freshness_lines(since: Mapping[str, Any]) -> dict[str, str]:
    """`Freshness.as_dict` for a person, by what it tells of."""
    counts = [
        f"{since[name]} {name}"
        for name in ("added", "updated", "relabelled", "removed")
        if since[name]
    ]
    heading = f"products since probe {since['probe']} was trained"
    lines = {heading: ", ".join(counts) or "nothing changed"}
    if since["new_categories"]:
        named = list(since["new_categories"].items())
        shown = ", ".join(f"{name} ({n})" for name, n in named[:5])
        lines["categories it never saw"] = shown + (", ..." if len(named) > 5 else "")
    if since["judged"]:
        right = f"right on {percent(since['accuracy'])} of {since['judged']} in categories it knows"
        before = since["held_out_accuracy"]
        when = "" if before is None else f"; {percent(before)} held out from its training"
        lines["probe on what is newer"] = right + when
    if since["advice"]:
        lines["advice"] = since["advice"]
    return lines


def policy_line(policy: Mapping[str, Any]) -> str:
    """A policy, as `info` has it, in one line."""
    return (
        f"accepts from {percent(policy['threshold'], 2)} on, {percent(policy['automation'])} of"
        f" answers, for a precision of {percent(policy['wanted'])} with"
        f" {percent(policy['confidence'], 0)} confidence"
    )
