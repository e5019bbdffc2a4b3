"""Everything that is fitted beside the probe's weights, from rows that did not train them."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from kinshelf.probe.calibrate.conformal import Conformal
from kinshelf.probe.calibrate.crossfit import OnPart, cross_fit
from kinshelf.probe.calibrate.mixture import certifying_answers, fit_calibration
from kinshelf.probe.calibrate.new_categories import fit_known
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.split import TrainingSet
from kinshelf.probe.novelty.fit import fit_novelty
from kinshelf.probe.novelty.reference import novelty_arrays


def calibrate(
    source: TrainingSet, probe: Probe, on_part: OnPart = lambda _done, _all: None
) -> Probe:
    """A copy of the probe that was trained on `source`, calibrated.

    Its `calibration` is fitted, and `reference` holds what prediction sets, policy, novelty and
    new categories are judged by. With too few rows the defaults stay, and a warning reports it.
    """
    reference: dict[str, NDArray[Any]] = {}
    known, novelty = fit_known(source, probe.settings.seed), fit_novelty(source, probe.settings)
    if known is not None:
        reference |= known.arrays()
    if novelty is not None:
        reference |= novelty_arrays(novelty)
    found = cross_fit(source, probe, probe.settings, on_part)
    if found is None:
        few = "too few products to calibrate on: probabilities are the probe's own, and prediction"
        few += " sets and policy need more"
        return probe.replace(reference=reference, warnings=(*probe.warnings, few))
    calibration = fit_calibration(found)
    held_out = certifying_answers(found, probe.settings.seed)
    conformal = Conformal.fit(held_out.given, held_out.codes)
    return probe.replace(
        calibration=calibration,
        reference=reference | held_out.arrays() | conformal.arrays(),
        warnings=(*probe.warnings, *_pooled(conformal, len(probe.classes))),
    )


def _pooled(conformal: Conformal, n_classes: int) -> tuple[str, ...]:
    pooled = conformal.pooled(n_classes)
    if not pooled:
        return ()
    return (
        f"{pooled} of {n_classes} categories have too few products for prediction sets of their"
        " own: their coverage holds on average over all categories",
    )
