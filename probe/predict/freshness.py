"""Changes to a shelf since its probe was trained, and advice on training again."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import BoolArray, IntArray, ObjectArray
from kinshelf.db.errors import ProbeError, ProbeNotFound, ShelfError
from kinshelf.db.text import percent
from kinshelf.probe.calibrate.intervals import upper_bound
from kinshelf.probe.calibrate.mixture import HeldOut
from kinshelf.probe.fit.storage import read_probe
from kinshelf.store.probes import find_probe

if TYPE_CHECKING:
    from kinshelf.probe.fit.model import Probe
    from kinshelf.store.base import AnyShelf
    from kinshelf.store.generation import AnySnapshot

SAMPLE = 2000
"""New products that the probe is asked about."""

MANY = 0.2
"""Share of categorised products that are new when it is time to train again."""

CLEARLY = 0.95
"""Confidence that the probe is less often right on new products than it was on held-out ones."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """Counts since probe `probe` was trained, at generation `generation`.

    `added` products have an id that was not there, `relabelled` ones another category than then,
    `updated` ones another picture or text; `removed` are gone. `new_categories` are those that the
    probe never saw, with their products. `accuracy` is the share of `judged` new and changed
    products of known categories, at most `SAMPLE`, for which the probe predicts the category that
    they were given; `held_out_accuracy` is that of the answers it was calibrated by. `advice`
    states when to train again, None if there is no need.
    """

    probe: int
    generation: int
    added: int
    updated: int
    relabelled: int
    removed: int
    new_categories: dict[str, int]
    accuracy: float | None
    judged: int
    held_out_accuracy: float | None
    advice: str | None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def probe_facts(shelf: AnyShelf, at: int | None = None) -> dict[str, Any]:
    """The figures of `info` on the newest probe: `since_training` (`Freshness`) and `policy`.

    Both None where there is no probe. Raises ShelfDamaged, GenerationNotFound or ProbeError.
    """
    now = shelf.snapshot(at)
    try:
        entry = find_probe(shelf, now)
    except ProbeNotFound:
        return {"since_training": None, "policy": None}
    probe = read_probe(entry.path)
    return {
        "since_training": freshness(now, probe, entry.version).as_dict(),
        "policy": probe.policy and asdict(probe.policy),
    }


def reported_facts(shelf: AnyShelf, at: int | None = None) -> tuple[dict[str, Any], str | None]:
    """Read `probe_facts`; return an error of the newest probe as text, so that the rest is
    shown."""
    try:
        return probe_facts(shelf, at), None
    except (ProbeError, ShelfError) as error:
        return {"since_training": None, "policy": None}, str(error)


def freshness(now: AnySnapshot, probe: Probe, version: int) -> Freshness:
    """Compare the snapshot with the products that the probe was trained on."""
    changes = now.view.changes_since(probe.generation)
    known = np.array([before for _, _, before, _ in changes], dtype=np.bool_)
    other = np.array([one != then for _, one, _, then in changes], dtype=np.bool_)
    rows = np.array([row for row, *_ in changes], dtype=np.int64)
    categories = np.empty(len(rows), dtype=object)
    categories[:] = [category for _, category, *_ in changes]
    right = _right(now, probe, rows, categories)
    new = _new_categories(now, probe)
    held_out = _held_out_accuracy(probe)
    return Freshness(
        probe=version,
        generation=probe.generation,
        added=int((~known).sum()),
        updated=int((known & ~other).sum()),
        relabelled=int((known & other).sum()),
        removed=now.view.removed_since(probe.generation),
        new_categories=new,
        accuracy=float(right.mean()) if len(right) else None,
        judged=len(right),
        held_out_accuracy=held_out,
        advice=_advice(new, _share_new(now, categories), right, held_out),
    )


def _right(now: AnySnapshot, probe: Probe, rows: IntArray, categories: ObjectArray) -> BoolArray:
    """Whether the probe predicts the category that each sampled product has, new categories
    left out."""
    place = {name: code for code, name in enumerate(probe.classes)}
    codes = np.array([place.get(name, -1) for name in categories], dtype=np.int64)
    sample = np.flatnonzero(codes >= 0)
    sample = np.sort(np.random.default_rng(0).permutation(sample)[:SAMPLE])
    if not len(sample):
        return np.zeros(0, dtype=np.bool_)
    predicted = probe.logits(now.fused(rows[sample])).argmax(axis=1)
    return np.asarray(predicted == codes[sample], dtype=np.bool_)


def _new_categories(now: AnySnapshot, probe: Probe) -> dict[str, int]:
    known = set(probe.classes)
    counted = Counter({name: n for name, n in now.view.categories().items() if name is not None})
    return {name: n for name, n in counted.most_common() if name not in known}


def _held_out_accuracy(probe: Probe) -> float | None:
    held_out = HeldOut.of(probe.reference)
    if held_out is not None:
        return float(held_out.right.mean())
    accuracy = probe.metrics.get("val_accuracy")
    return None if accuracy is None else float(accuracy)


def _share_new(now: AnySnapshot, categories: ObjectArray) -> float:
    given = sum(category is not None for category in categories)
    return given / max(now.view.totals()["categorised"], 1)


def _advice(
    new: dict[str, int], share: float, right: BoolArray, held_out: float | None
) -> str | None:
    """One line, None where the probe serves well."""
    reasons = []
    if new:
        names = ", ".join(list(new)[:3]) + (", ..." if len(new) > 3 else "")
        several = "categories are" if len(new) > 1 else "category is"
        reasons.append(f"{len(new)} {several} newer than the probe ({names})")
    if len(right) and held_out is not None:
        most = float(upper_bound(right.sum(), len(right), CLEARLY))
        if most < held_out:
            reasons.append(
                f"the probe is right on {percent(right.mean())} of {len(right)} newer products,"
                f" {percent(held_out)} when it was trained"
            )
    if share > MANY:
        reasons.append(
            f"{percent(share, 0)} of the categorised products are newer than the probe, or changed"
        )
    return f"train again: {'; '.join(reasons)}" if reasons else None
