"""Questions that come together are answered together: one search and one matrix for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kinshelf.db.errors import KinshelfError
from kinshelf.serve.workers.batching import Batcher

if TYPE_CHECKING:
    from kinshelf.probe.predict.prediction import Prediction
    from kinshelf.probe.predict.predictor import Predictor


_PATIENCE = 0.3
"""Those that were encoded together come one after the other, and cost half as much together."""


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """Embedding pairs, (1, 2 * dimension) float32, and by whom they are to be judged."""

    predictor: Predictor
    pairs: NDArray[np.float32]
    where: str | None
    id: str | None


class SharedPredictor:
    """`Predictor.predict` of one query, for many threads at once."""

    def __init__(self, largest: int) -> None:
        self._batcher: Batcher[_Question, Prediction | KinshelfError] = Batcher(
            _answers, largest, patience=_PATIENCE
        )

    def predict(
        self,
        predictor: Predictor,
        pairs: NDArray[np.float32],
        where: str | None,
        product_id: str | None = None,
    ) -> Prediction:
        """The answer to one query. Raises what `Predictor.predict` raises."""
        found = self._batcher.results([_Question(predictor, pairs, where, product_id)])[0]
        if isinstance(found, KinshelfError):
            raise found
        return found

    def close(self) -> None:
        """Finish what waits."""
        self._batcher.close()


def _answers(questions: list[_Question]) -> Iterable[Prediction | KinshelfError]:
    groups: dict[tuple[int, str | None], list[_Question]] = defaultdict(list)
    for question in questions:
        groups[id(question.predictor), question.where].append(question)
    found = {}
    for group in groups.values():
        for question, answer in zip(group, _together(group), strict=True):
            found[id(question)] = answer
    return [found[id(question)] for question in questions]


def _together(group: list[_Question]) -> Iterable[Prediction | KinshelfError]:
    pairs = np.concatenate([question.pairs for question in group])
    try:
        answers = group[0].predictor.predict(pairs, where=group[0].where)
    except KinshelfError as error:
        return [error] * len(group)
    return [_named(a, question.id) for a, question in zip(answers, group, strict=True)]


def _named(answer: Prediction, product_id: str | None) -> Prediction:
    import dataclasses

    return answer if product_id is None else dataclasses.replace(answer, id=product_id)
