"""The probe: training, the hybrid with neighbours, predictions with evidence, evaluation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinshelf.probe.classifier import HybridClassifier
    from kinshelf.probe.evaluate.held_out import evaluate_shelf
    from kinshelf.probe.fit.model import Probe
    from kinshelf.probe.fit.settings import Calibration, ProbeSettings
    from kinshelf.probe.predict.prediction import Prediction
    from kinshelf.probe.predict.predictor import classify, classify_source
    from kinshelf.probe.train import train_shelf

__all__ = [
    "Calibration",
    "HybridClassifier",
    "Prediction",
    "Probe",
    "ProbeSettings",
    "classify",
    "classify_source",
    "evaluate_shelf",
    "train_shelf",
]

# scikit-learn takes a second to import: only those who ask for a name wait for what it needs.
_HOMES = {
    "Calibration": "fit.settings",
    "HybridClassifier": "classifier",
    "Prediction": "predict.prediction",
    "Probe": "fit.model",
    "ProbeSettings": "fit.settings",
    "classify": "predict.predictor",
    "classify_source": "predict.predictor",
    "evaluate_shelf": "evaluate.held_out",
    "train_shelf": "train",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"kinshelf.probe.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
