"""Kinshelf: put every product into its category, with the products that support the answer.

>>> import kinshelf as ks
>>> ks.Product("T1", title="Wooden train").title
'Wooden train'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinshelf.db.errors import *  # noqa: F403 - all of them are public
    from kinshelf.db.product import Product as Product
    from kinshelf.db.product import Reject as Reject
    from kinshelf.face import Shelf as Shelf
    from kinshelf.face import create as create
    from kinshelf.face import open as open  # noqa: A004 - the name that users look for
    from kinshelf.probe.audit.audit import audit_shelf
    from kinshelf.probe.classifier import HybridClassifier as HybridClassifier
    from kinshelf.probe.evaluate.held_out import evaluate_shelf
    from kinshelf.probe.predict.prediction import Prediction as Prediction
    from kinshelf.probe.predict.predictor import classify as classify
    from kinshelf.probe.train import train_shelf
    from kinshelf.store.query import Query as Query
    from kinshelf.store.results import AddOptions as AddOptions
    from kinshelf.store.results import AddReport as AddReport
    from kinshelf.store.results import Neighbour as Neighbour
    from kinshelf.store.results import SearchResult as SearchResult
    from kinshelf.store.similar.search import similar as similar

    audit, evaluate, train = audit_shelf, evaluate_shelf, train_shelf
    __version__: str

# NumPy alone takes longer to import than this module may: who asks for a name waits for it.
_HOMES = {
    "AddOptions": "store.results:AddOptions",
    "AddReport": "store.results:AddReport",
    "HybridClassifier": "probe.classifier:HybridClassifier",
    "Neighbour": "store.results:Neighbour",
    "Prediction": "probe.predict.prediction:Prediction",
    "Product": "db.product:Product",
    "Query": "store.query:Query",
    "Reject": "db.product:Reject",
    "SearchResult": "store.results:SearchResult",
    "Shelf": "face:Shelf",
    "audit": "probe.audit.audit:audit_shelf",
    "classify": "probe.predict.predictor:classify",
    "create": "face:create",
    "evaluate": "probe.evaluate.held_out:evaluate_shelf",
    "open": "face:open",
    "similar": "store.similar.search:similar",
    "train": "probe.train:train_shelf",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        return getattr(import_module(f"kinshelf.{module}"), attribute)
    if name == "__version__":
        from importlib.metadata import version

        return version("kinshelf")
    if not name.startswith("_") and hasattr(errors := import_module("kinshelf.db.errors"), name):
        return getattr(errors, name)
    raise AttributeError(f"module 'kinshelf' has no attribute {name!r}")
