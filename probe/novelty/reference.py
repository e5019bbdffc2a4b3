"""Storage of the novelty model among a probe's reference arrays."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from kinshelf.probe.fit.model import Probe
from kinshelf.probe.novelty.model import NoveltyModel

_PREFIX = "novelty."


def novelty_arrays(model: NoveltyModel) -> dict[str, NDArray[Any]]:
    """By name, to be stored with a probe."""
    return {_PREFIX + name: array for name, array in model.arrays().items()}


def novelty_model(probe: Probe | None) -> NoveltyModel | None:
    """The model of novel products; None if the probe was not calibrated for it."""
    arrays = {
        name.removeprefix(_PREFIX): array
        for name, array in (probe.reference if probe else {}).items()
        if name.startswith(_PREFIX)
    }
    return NoveltyModel.from_arrays(arrays, probe.classes) if probe and arrays else None
