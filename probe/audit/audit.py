"""The audit: what is probably wrong on a shelf, ranked, with evidence and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import BoolArray, FloatArray, IntArray
from kinshelf.db.errors import ProbeNotFound
from kinshelf.db.labels import label_key, spellings
from kinshelf.probe.audit.conflicts import CONFLICT, Conflicts, find_conflicts
from kinshelf.probe.audit.duplicates import Duplicates, copies, find_duplicates
from kinshelf.probe.audit.facts import Facts, read_facts
from kinshelf.probe.audit.graph import Graph, build_graph
from kinshelf.probe.audit.label_errors import LabelErrors, find_label_errors
from kinshelf.probe.audit.out_of_fold import OutOfFold, judge_out_of_fold
from kinshelf.probe.audit.outliers import FAR, Outliers, find_outliers
from kinshelf.probe.audit.proposals import Proposal, propose_categories
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.settings import ProbeSettings
from kinshelf.probe.fit.split import FOLDS
from kinshelf.probe.fit.storage import read_probe
from kinshelf.store.probes import find_probe
from kinshelf.store.results import Rows, fields_of

if TYPE_CHECKING:
    import pandas as pd

    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot

SHOWN = 5
"""Neighbours named as evidence."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A product with a suspected fault; its fields are the columns of the audit's file.

    Scores rise with suspicion: `label_score` from 0 to 1, 0.5 where another category is as
    probable; `outlier_score` in robust standard deviations; `conflict_score` 1 where picture and
    text fit no better than chance. None where there is nothing to judge. `accept` and
    `new_category` are for the reviewer: `relabel` reads them. They are empty, but where the
    category is another spelling of one that more products have and nothing else speaks against
    it: there `accept` is "yes" for that one.
    """

    id: str
    title: str
    category: str | None
    accept: str
    new_category: str
    is_label_issue: bool
    label_score: float | None
    suggested_category: str | None
    suggested_probability: float | None
    is_near_duplicate: bool
    is_exact_duplicate: bool
    duplicate_group: str | None
    is_outlier: bool
    outlier_score: float | None
    is_conflict: bool
    conflict_score: float | None
    image_says: str | None
    text_says: str | None
    text_fits_better: str | None
    is_category_spelling: bool
    evidence: list[str]
    image: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """The findings over one generation's products, each part aligned with `facts`."""

    generation: int
    facts: Facts
    graph: Graph
    judged: OutOfFold | None
    labels: LabelErrors | None
    duplicates: Duplicates
    outliers: Outliers
    conflicts: Conflicts
    proposals: list[Proposal] | None
    spellings: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Products with each kind of finding, and how many were looked at."""
        found = {
            "products": len(self.facts),
            "label_issues": int(self.labels.flagged.sum()) if self.labels else 0,
            "near_duplicates": int(self.duplicates.flagged.sum()),
            "exact_duplicates": int(self.duplicates.exact.sum()),
            "outliers": int(self.outliers.flagged.sum()),
            "conflicts": int(self.conflicts.flagged.sum()),
        }
        if self.spellings:
            found["category_spellings"] = int(self._is_spelling.sum())
        return found | ({} if self.proposals is None else {"proposals": len(self.proposals)})

    @property
    def rows(self) -> Iterator[AuditRow]:
        """The products that something is the matter with, the most suspect first."""
        return (self.row(int(place)) for place in self.places)

    @property
    def _is_spelling(self) -> BoolArray:
        """Which products (n,) have a category that is another's spelling."""
        return np.array([name in self.spellings for name in self.facts.categories], dtype=np.bool_)

    def to_pandas(self) -> pd.DataFrame:
        """One row a product that something is the matter with, the most suspect first."""
        return Rows(fields_of(row) for row in self.rows).to_pandas()

    @property
    def places(self) -> IntArray:
        """Places of these products, by how far the worst finding is past its threshold.

        Those that are only there more than once come last.
        """
        score = np.full(len(self.facts), -np.inf)
        if self.labels is not None and self.judged is not None:
            label = np.where(self.labels.flagged, 1 + self.labels.score, -np.inf)
            np.maximum.at(score, self.judged.places, label)
        for flagged, past in (
            (self.conflicts.flagged, self.conflicts.score / CONFLICT),
            (self.outliers.flagged, self.outliers.score / FAR),
            (self.duplicates.flagged, 0.0),
            (self._is_spelling, 0.0),
        ):
            score = np.maximum(score, np.where(flagged, past, -np.inf))
        order = np.lexsort((np.arange(len(score)), self.duplicates.group, -score))
        return np.asarray(order[np.isfinite(score[order])])

    def row(self, place: int) -> AuditRow:
        """Everything about the product at a place of `facts`."""
        facts = self.facts
        better, group = int(self.conflicts.better[place]), int(self.duplicates.group[place])
        conflict = bool(self.conflicts.flagged[place])
        return AuditRow(
            id=facts.ids[place],
            title=facts.titles[place],
            category=facts.categories[place],
            new_category="",
            **self._judged(place),
            is_near_duplicate=group >= 0,
            is_exact_duplicate=bool(self.duplicates.exact[place]),
            duplicate_group=facts.ids[group] if group >= 0 else None,
            is_outlier=bool(self.outliers.flagged[place]),
            outlier_score=_number(self.outliers.score[place]),
            is_conflict=conflict,
            conflict_score=_number(self.conflicts.score[place]),
            text_fits_better=facts.ids[better] if conflict and better >= 0 else None,
            evidence=[facts.ids[near] for near in self.neighbours(place)],
            image=facts.images[place],
        )

    def neighbours(self, place: int) -> list[int]:
        """Places of the nearest products, at most `SHOWN`."""
        near = self.graph.places[place]
        return [int(other) for other in near[near >= 0][:SHOWN]]

    def _judged(self, place: int) -> dict[str, Any]:
        label = self._label(place)
        usual = self.spellings.get(self.facts.categories[place] or "")
        suggested = label["suggested_category"] if label["is_label_issue"] else usual
        merge = usual is not None and label_key(suggested or "") == label_key(usual)
        if merge:  # a probe that suggests another spelling speaks for it
            label["suggested_category"] = usual
        return label | {"is_category_spelling": usual is not None, "accept": "yes" if merge else ""}

    def _label(self, place: int) -> dict[str, Any]:
        names = ("label_score", "suggested_category", "suggested_probability", "image_says",
                 "text_says")  # fmt: skip
        nothing: dict[str, Any] = {"is_label_issue": False} | dict.fromkeys(names)
        if self.labels is None or self.judged is None:
            return nothing
        judged = self.judged
        at = int(np.searchsorted(judged.places, place))
        if at == len(judged.places) or judged.places[at] != place:
            return nothing
        suspect = self.labels.score[at] > 0.5 or self.labels.flagged[at]
        return {
            "is_label_issue": bool(self.labels.flagged[at]),
            "label_score": _number(self.labels.score[at]),
            "suggested_category": judged.classes[self.labels.suggested[at]] if suspect else None,
            "suggested_probability": _number(self.labels.probability[at]) if suspect else None,
            "image_says": _class(judged, judged.image_code[at]),
            "text_says": _class(judged, judged.text_code[at]),
        }


def _class(judged: OutOfFold, code: int) -> str | None:
    return judged.classes[code] if code >= 0 else None


def _number(value: FloatArray | np.floating[Any]) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def audit_shelf(
    shelf: AnyShelf,
    *,
    novel: bool = False,
    settings: ProbeSettings | None = None,
    k: int = 20,
    group: str | None = None,
    progress: Progress = lambda _what, _done, _all: None,
) -> Audit:
    """Look for label errors, duplicates, outliers and conflicts among all products.

    The probes of the folds are trained with `settings`, else as the newest probe was. `novel`
    proposes new categories too. Products of equal values in the column `group`, None: that of
    the settings, do not judge one another. Raises EmptyShelf, InvalidSetting for an unknown column.

    >>> audit = audit_shelf(shelf)
    >>> list(audit.to_pandas().columns[:3])
    ['id', 'title', 'category']
    """
    now = shelf.snapshot()
    probe = _newest(shelf, now)
    settings = settings or (probe.settings if probe else ProbeSettings())
    settings = settings.override(group=group)
    graph = build_graph(now, k, lambda done, n: progress("neighbours", done, n))
    facts = read_facts(now)
    copied = copies(graph, facts)
    judged = judge_out_of_fold(
        now, graph, facts, settings,
        lambda done, n: progress("probes of the folds", done, n),
    )  # fmt: skip
    progress("judging", FOLDS, FOLDS)
    return Audit(
        generation=now.generation,
        facts=facts,
        graph=graph,
        judged=judged,
        labels=None if judged is None else find_label_errors(judged.proba, judged.codes),
        duplicates=find_duplicates(now, graph, facts),
        outliers=find_outliers(graph, facts, copied),
        conflicts=find_conflicts(now, facts),
        proposals=propose_categories(now, facts, probe) if novel else None,
        spellings=spellings(Counter(facts.categories)),
    )


def _newest(shelf: AnyShelf, now: AnySnapshot) -> Probe | None:
    try:
        return read_probe(find_probe(shelf, now).path)
    except ProbeNotFound:
        return None
