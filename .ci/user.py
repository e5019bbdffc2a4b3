"""A user's file, which mypy and pyright must find clean with the wheel alone."""

from pathlib import Path

import numpy as np

import kinshelf as ks


def clean(path: Path, source: Path) -> list[str]:
    """Add, ask, train and judge, and use the scikit-learn face."""
    with ks.create(path) as shelf:
        report = shelf.add(source)
        print(report.inserted + report.updated)
        answer: ks.Prediction = shelf.classify(text="a wooden train")
        print(answer.category, answer.probability)
    with ks.open(str(path)) as shelf:
        found = shelf.similar(id="1", k=3).to_pandas()
        shelf.upsert([ks.Product("2", title="a cup")])
        ks.train(shelf)
        judged = ks.evaluate(shelf)
        print(len(found), judged.protocol)
        model = ks.HybridClassifier().fit(np.eye(4), ["a", "b", "a", "b"])
        distances, rows = model.kneighbors(np.eye(4), 2)
        print(distances.shape, rows.shape)
    try:
        ks.open("nowhere.shelf")
    except ks.KinshelfError as error:
        return [str(error)]
    return []
