"""The probe's network in torch, and the state of torch that makes its training repeatable."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from kinshelf.db.arrays import FloatArray
from kinshelf.db.errors import InvalidSetting
from kinshelf.db.host import environment
from kinshelf.db.threads import one_blas_thread
from kinshelf.probe.fit.settings import ProbeSettings

if TYPE_CHECKING:
    import torch


def build_network(input_dim: int, n_classes: int, settings: ProbeSettings) -> torch.nn.Sequential:
    """`Linear, ReLU, Dropout, Linear` under the name `net`, with torch's default weights.

    Parameters are named as in `model.WEIGHT_NAMES`.
    """
    from torch import nn

    net = nn.Sequential(
        nn.Linear(input_dim, settings.hidden),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.hidden, n_classes),
    )
    network = nn.Sequential()
    network.add_module("net", net)
    return network


def weights_of(network: torch.nn.Module) -> dict[str, FloatArray]:
    """A copy of the parameters as float32 arrays in memory."""
    return {
        name: np.array(value.detach().cpu().numpy(), dtype=np.float32)
        for name, value in network.state_dict().items()
    }


def load_weights(network: torch.nn.Module, weights: dict[str, FloatArray]) -> None:
    """The inverse of `weights_of`."""
    import torch

    network.load_state_dict({name: torch.from_numpy(own) for name, own in weights.items()})


def device_of(settings: ProbeSettings) -> torch.device:
    """The device asked for, or CUDA where there is one. Raises InvalidSetting."""
    import torch

    name = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # "meta" holds no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidSetting(f"device {name!r} cannot be used ({reason}): try 'cpu'") from error
    return device


@contextlib.contextmanager
def repeatable(seed: int, device: torch.device) -> Iterator[None]:
    """Seeded random numbers and deterministic algorithms inside; torch as it was afterwards."""
    import torch

    cuda = [device] if device.type == "cuda" else []
    # cuBLAS repeats its sums only with a workspace of fixed size
    workspace = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if cuda else {}
    threads = torch.get_num_threads()
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with environment(workspace), torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        # a batch is too small to share between cores (on a busy machine two threads took ten
        # times as long), and sums must not depend on how many there are
        torch.set_num_threads(1)
        try:
            with one_blas_thread:
                yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
