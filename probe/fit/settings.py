"""Settings of a probe's training, and of the hybrid of probe and neighbours."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_type_hints

from kinshelf.db.errors import InvalidSetting, SourceNotFound

SPACES = ("fused", "centred", "whitened", "hidden")
"""In which a neighbour's weight may be measured; see `probe.calibrate.vote_space`."""


@dataclass(frozen=True, slots=True)
class _Range:
    """Numbers that a setting may take; `open_low` and `open_high` leave the ends out."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        left = "more than" if self.open_low else "at least"
        right = "less than" if self.open_high else "at most"
        return f"{left} {self.low:g} and {right} {self.high:g}"


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """The training recipe: one hidden layer, cross-entropy, Adam, early stopping.

    `val_fraction` of the training rows decides when to stop (0: never stop early) and is not
    reported on. `modality_dropout` is the share of products whose picture or text is hidden in an
    epoch, so that the probe answers without it; of 0.05, 0.2, 0.3 and 0.5 the last was the best for
    a picture alone on two shops, and cost nothing with both. A training set of fewer than
    `refit_below` rows is trained once more on all of them, for a third more epochs than was best.
    `group` names a column: products of equal values in it are on one side of every fold and split.
    `device` None: CUDA if there is one. `mixed_precision` None: on CUDA only. Raises
    InvalidSetting.
    """

    epochs: Annotated[int, _Range(1, 100_000)] = 50
    batch_size: Annotated[int, _Range(1, 1_000_000)] = 64
    lr: Annotated[float, _Range(0, 10, open_low=True)] = 1e-3
    weight_decay: Annotated[float, _Range(0, 10)] = 1e-4
    hidden: Annotated[int, _Range(1, 65_536)] = 256
    dropout: Annotated[float, _Range(0, 1, open_high=True)] = 0.2
    patience: Annotated[int, _Range(1, 100_000)] = 3
    seed: Annotated[int, _Range(0, 2**53)] = 42
    val_fraction: Annotated[float, _Range(0, 0.5)] = 0.1
    modality_dropout: Annotated[float, _Range(0, 1, open_high=True)] = 0.5
    refit_below: Annotated[int, _Range(0, 2**53)] = 20_000
    group: str | None = None
    device: str | None = None
    mixed_precision: bool | None = None

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def from_toml(cls, path: Path | str) -> Self:
        """Settings of a TOML file, at its top level. Raises SourceNotFound, InvalidSetting."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SourceNotFound(f"no settings file at {path}: check the path") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidSetting(f"{path} cannot be read as TOML: {error}") from error
        return cls.from_mapping({key.replace("-", "_"): value for key, value in values.items()})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Settings by name. Raises InvalidSetting, which names the nearest known setting."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise InvalidSetting(f"unknown setting {name!r}; {hint}")
        return cls(**values)

    def override(self, **options: int | float | str | bool | None) -> Self:
        """A copy with the options that are not None. Raises InvalidSetting."""
        given = {name: value for name, value in options.items() if value is not None}
        return self.from_mapping(dataclasses.asdict(self) | given)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How probe, ridge and k neighbours become one distribution (see `probe.calibrate.hybrid`).

    `temperature` divides the probe's logits, `sharpness` multiplies the ridge's scores, `tau`
    divides the similarities in `space` (see `probe.calibrate.vote_space`). The probe's
    probabilities to the power `probe_power` times the ridge's to `ridge_power` are pooled; `lam` is
    the neighbours' share beside the pool. `probe.calibrate.mixture` fits them. These defaults are
    those of a probe that has no ridge.
    """

    temperature: Annotated[float, _Range(0, 1e6, open_low=True)] = 1.0
    tau: Annotated[float, _Range(0, 1e6, open_low=True)] = 0.02
    k: Annotated[int, _Range(1, 100_000)] = 10
    lam: Annotated[float, _Range(0, 1)] = 0.1
    space: str = "fused"
    sharpness: Annotated[float, _Range(0, 1e6, open_low=True)] = 12.0
    probe_power: Annotated[float, _Range(0, 1e3)] = 1.0
    ridge_power: Annotated[float, _Range(0, 1e3)] = 0.0

    def __post_init__(self) -> None:
        _check(self)
        if self.space not in SPACES:
            raise InvalidSetting(f"space is {self.space!r}: it must be one of {', '.join(SPACES)}")


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy: answers of at least `threshold` with probe and neighbours agreed need no review.

    On the held-out rows `automation` of the answers passed, `precision` of those were right, at
    least `precision_low` and at most `precision_high` with `confidence`; `wanted` was asked for.
    `depth`: of categories that stand under others an answer must be sure down to the last level.
    """

    wanted: float
    threshold: float
    automation: float
    precision: float
    precision_low: float
    precision_high: float
    confidence: float
    n: int
    depth: bool = False


def _check(settings: ProbeSettings | Calibration) -> None:
    for name, kind in get_type_hints(type(settings), include_extras=True).items():
        value, ranges = getattr(settings, name), getattr(kind, "__metadata__", ())
        _check_type(name, value, kind.__origin__ if ranges else kind)
        for allowed in ranges:
            if value not in allowed:
                raise InvalidSetting(f"{name} is {value!r}: it must be {allowed}")


def _check_type(name: str, value: object, wanted: Any) -> None:
    kinds = get_args(wanted) or (wanted,)
    if float in kinds:
        kinds += (int,)
    # bool is an int to Python; `epochs = true` in a file is a mistake
    boolean = isinstance(value, bool) and bool not in kinds
    unordered = isinstance(value, float) and math.isnan(value)
    if boolean or unordered or not isinstance(value, kinds):
        shown = wanted.__name__ if isinstance(wanted, type) else wanted
        raise InvalidSetting(f"{name} is {value!r}: it must be of type {shown}")
