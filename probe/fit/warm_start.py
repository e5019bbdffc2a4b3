"""Starting to train where an earlier probe ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import InvalidSetting
from kinshelf.probe.fit.model import Probe
from kinshelf.probe.fit.settings import ProbeSettings

if TYPE_CHECKING:
    import torch

_OUTPUT = ("net.3.weight", "net.3.bias")


def check_start(start: Probe, settings: ProbeSettings, dimension: int) -> None:
    """Raises InvalidSetting unless a network of these settings can take the probe's weights."""
    found, wanted = start.settings.hidden, settings.hidden
    if found != wanted:
        raise InvalidSetting(
            f"a warm start needs equal hidden layers: the earlier probe has hidden {found}, asked"
            f" is {wanted}; give --hidden {found}, or train without --warm-start"
        )
    if start.input_dim != dimension:
        raise InvalidSetting(
            f"a warm start needs equal embeddings: the earlier probe reads {start.input_dim}"
            f" values, the shelf's have {dimension}; train without --warm-start"
        )


def begin_from(
    network: torch.nn.Module,
    weights: Mapping[str, FloatArray],
    before: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Copy the hidden layer, and the outputs of the classes `before` that are still in `classes`.

    Outputs of new classes stay as the network has them.
    """
    import torch

    place = {name: code for code, name in enumerate(before)}
    shared = [(code, place[name]) for code, name in enumerate(classes) if name in place]
    own, theirs = (list(codes) for codes in zip(*shared, strict=True)) if shared else ([], [])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            given = torch.from_numpy(weights[name]).to(parameter.device)
            if name in _OUTPUT:
                parameter[own] = given[theirs]
            else:
                parameter.copy_(given)
