"""Everything that is fitted beside the probe's weights, from rows that did not train them."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from kinshelf.probe.calibrate.conformal import Conformal
from kinshelf.probe.calibrate.crossfit import OnPart, cross_fit
from kinshelf.probe.calibrate.depth import fit_depth
from kinshelf.probe.calibrate.hybrid import VIEW_PARAMETERS
from kinshelf.probe.calibrate.mixture import (
    PRIOR,
    certifying_answers,
    fit_calibration,
    fit_views,
)
from kinshelf.probe.calibrate.new_categories import fit_known
from kinshelf.probe.calibrate.vote_space import fit_metric
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.ridge import fit_ridge
from kinshelf.probe.fit.split import TrainingSet
from kinshelf.probe.novelty.fit import fit_novelty
from kinshelf.probe.novelty.reference import novelty_arrays


def calibrate(
    source: TrainingSet, probe: Probe, on_part: OnPart = lambda _done, _all: None
) -> Probe:
    """A copy of the probe that was trained on `source`, calibrated.

    Its `calibration` is fitted, and `reference` holds what prediction sets, policies, novelty
    and new categories are judged by. With too few rows the defaults stay, and a warning reports it.
    """
    source = source.with_basis(probe.settings.seed)
    reference: dict[str, NDArray[Any]] = {}
    known, novelty = fit_known(source, probe.settings.seed), fit_novelty(source, probe.settings)
    if known is not None:
        reference |= known.arrays()
    if novelty is not None:
        reference |= novelty_arrays(novelty)
    ridge = fit_ridge(source, probe.settings.seed)
    reference |= ridge.ridge.arrays()
    if "metric.mean" not in reference:
        reference |= fit_metric(source, probe.settings.seed).arrays()
    found = cross_fit(source, probe, probe.settings, ridge, on_part)
    if found is None:
        few = "too few products to calibrate on: probabilities are as usual, and prediction sets"
        few += " and policy need more"
        return probe.replace(
            calibration=PRIOR, reference=reference, warnings=(*probe.warnings, few)
        )
    calibration = fit_calibration(found)
    views = reference[VIEW_PARAMETERS] = fit_views(found, calibration)
    depth = fit_depth(source, found, ridge, calibration, views, probe.settings.seed)
    if depth is not None:
        reference |= depth.arrays()
    held_out = certifying_answers(found, probe.settings.seed)
    conformal = Conformal.fit(held_out.given, held_out.codes, held_out.views)
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
