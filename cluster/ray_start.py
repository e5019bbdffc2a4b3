"""Ray: found, started or joined, without telemetry, dashboard or noise."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

from kinshelf.db.errors import ClusterError

LOCAL = "local"
_LOOPBACK = "127.0.0.1"
_STORE = 128 * 2**20
"""Bytes of Ray's object store: names of parts go through it, never embeddings."""

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
    ray = _imported()
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    settings |= _local() if address == LOCAL else {"address": address}
    if address.startswith((_LOOPBACK, "localhost")):
        settings["_node_ip_address"] = _LOOPBACK
    try:
        ray.init(**settings)
    except (ConnectionError, RuntimeError, ValueError, OSError) as problem:
        reason = str(problem).partition("\n")[0]
        raise ClusterError(
            f"Ray at {address} cannot be used ({reason}): give HOST:PORT of `ray start --head`,"
            " or --ray local"
        ) from problem
    try:
        yield ray
    finally:
        ray.shutdown()


def _local() -> dict[str, Any]:
    from kinshelf.store.threads import threads

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
    # Set by itself, it writes every plan that it executes to standard error.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray
