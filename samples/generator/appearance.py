"""How one product looks: the input of every painter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from kinshelf.samples.generator.drawing import Colour


@dataclass(frozen=True, slots=True)
class Look:
    """The kind of object, its two colours and pattern, and the theme printed on it.

    `disguised` asks for the view that hides what tells the object from its look-alikes: the closed
    box, the mug turned so that its handle is behind it. `rng` is the picture's own.
    """

    kind: str
    ground: Colour
    accent: Colour
    pattern: str
    theme: str
    disguised: bool
    rng: np.random.Generator
