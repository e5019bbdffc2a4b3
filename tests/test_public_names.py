"""The public names: few, and these."""

from __future__ import annotations

import kinshelf.probe
import kinshelf.store
from kinshelf.db import errors


def test_the_public_names_are_pinned() -> None:
    assert set(kinshelf.store.__all__) == {
        "AddOptions", "AddReport", "CompactReport", "DirectoryShelf", "Finding", "Neighbour",
        "Neighbours", "Product", "Reject", "SearchResult", "Snapshot",
    }  # fmt: skip
    assert set(kinshelf.probe.__all__) == {
        "Calibration", "HybridClassifier", "Prediction", "Probe", "ProbeSettings", "classify",
        "classify_source", "evaluate_shelf", "train_shelf",
    }  # fmt: skip
    for module in (kinshelf.store, kinshelf.probe):
        for name in module.__all__:
            assert getattr(module, name).__doc__, name


def test_every_error_is_a_kinshelf_error_that_states_what_it_means() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type)]
    assert len(classes) > 20
    for error in classes:
        assert issubclass(error, errors.KinshelfError)
        assert error.__doc__
        assert error.__name__ in (errors.__doc__ or "")
