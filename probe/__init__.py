"""The probe: training, the hybrid with neighbours, evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinshelf.probe.classifier import HybridClassifier

__all__ = ["HybridClassifier"]


def __getattr__(name: str) -> Any:
    # scikit-learn takes a second to import: only those who classify arrays wait for it
    if name == "HybridClassifier":
        from kinshelf.probe.classifier import HybridClassifier

        return HybridClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
