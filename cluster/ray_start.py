"""Ray: found, started or joined, without telemetry, dashboard or noise."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from kinshelf.db.errors import ClusterError
from kinshelf.db.host import mute

LOCAL = "local"
_LOOPBACK = "127.0.0.1"
_STORE = 128 * 2**20
"""Bytes of Ray's object store: names of parts go through it, never embeddings."""
_KNOCKED = 10.0
"""Seconds in which the head of a cluster must take a connection."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else it writes advice on Ray itself to standard error
}


@contextlib.contextmanager
def ray_cluster(address: str) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address` for as long as the context lasts.

    "local" is a cluster of this machine's cores (KINSHELF_THREADS of them), for this process
    alone. Raises ClusterError if Ray is not installed or the cluster cannot be reached.
    """
    if address == LOCAL:
        _own_token()
    else:
        _knock(address)
    ray = _imported()
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    settings |= _local() if address == LOCAL else {"address": address}
    if address.startswith((_LOOPBACK, "localhost")):
        settings["_node_ip_address"] = _LOOPBACK
    try:
        with _silent():
            ray.init(**settings)
    except (ConnectionError, RuntimeError, ValueError, OSError) as problem:
        raise ClusterError(_unusable(address, problem)) from problem
    # Ray tells of lost workers on standard output, where answers go, some of it at the end.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield ray
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raises ClusterError where nobody listens: Ray would go on trying for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCKED).close()
    except (OSError, ValueError, OverflowError) as problem:
        raise ClusterError(_unusable(address, problem)) from problem


def _unusable(address: str, problem: Exception) -> str:
    reason = str(problem).partition("\n")[0]
    return (
        f"Ray at {address} cannot be used ({reason}): give HOST:PORT of `ray start --head`,"
        " and the token of the cluster (RAY_AUTH_TOKEN), or --ray local"
    )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Discard what Ray's C++ part prints about its settings; errors come as exceptions."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _own_token() -> None:
    """A secret for this cluster alone; Ray would write one into the home directory."""
    if not any(name.startswith("RAY_AUTH_") for name in os.environ):
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _local() -> dict[str, Any]:
    from kinshelf.db.threads import threads

    return {
        "address": LOCAL,
        "num_cpus": threads(),
        "include_dashboard": False,
        "object_store_memory": _STORE,
        "_node_ip_address": _LOOPBACK,
    }


def _imported() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
            import ray.data
    except ImportError as problem:
        raise ClusterError(
            f"Ray is not installed ({problem}): pip install 'kinshelf[cluster]'"
        ) from problem
    mute("ray.data")  # set by itself, it writes every plan that it executes to standard error
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray
