"""How deep in the tree of categories each answer is sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kinshelf.db.arrays import Float64Array
from kinshelf.probe.calibrate.depth import Depth
from kinshelf.probe.calibrate.tree import Tree
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.predict.prediction import Levels, Vote


class Depths:
    """Finds the `Levels` of answers over `classes`, by a probe's depth policy if it has one."""

    def __init__(self, classes: Sequence[str], probe: Probe | None) -> None:
        self._tree = Tree(classes)
        depth = Depth.of(probe.reference) if probe else None
        self._policy = depth and depth.policy(probe.policy if probe else None)

    def of(self, proba: Float64Array, novelty: Sequence[float | None]) -> Sequence[Levels | None]:
        """Those of n answers (n, n_classes) with their novelty; None where no category stands under
        another."""
        tree = self._tree
        if not tree.is_deep:
            return [None] * len(proba)
        paths = tree.paths(proba)
        p = np.array([np.nan if value is None else value for value in novelty])
        sure = self._policy.levels(paths, p) if self._policy else np.full(len(proba), -1)
        found = []
        for nodes, own, length, level in zip(
            paths.nodes, paths.probabilities, paths.lengths, sure, strict=True
        ):
            votes = [Vote(tree.nodes[nodes[i]], float(own[i])) for i in range(length)]
            found.append(Levels(votes, votes[level] if level >= 0 else None))
        return found
