"""An acknowledged change survives whatever happens; nothing else ever appears.

Short runs; the long ones are `python bench/faults.py`. Each names its seed.
"""

from __future__ import annotations

import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults import (
    damage,
    graphs,
    interrupt,
    kill,
    oracle,
    power,
    readers,
    stranger,
    swapped,
    syscalls,
)  # fmt: skip
from faults.machine import ShelfMachine
from faults.world import pairs
from hypothesis import HealthCheck, settings

from kinshelf import Shelf

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


def test_nothing_acknowledged_is_lost_and_nothing_else_appears_when_a_writer_is_killed(
    tmp_path: Path,
) -> None:
    tally = kill.run(tmp_path, "ci", kills=40)
    assert tally.acknowledged > 40
    assert tally.slowest_opening < 2


def test_a_failed_system_call_leaves_a_change_whole_or_absent_and_reports_it(
    tmp_path: Path,
) -> None:
    outcomes = syscalls.run(tmp_path, every=29)
    assert {"acknowledged", "died", "refused"} <= set(outcomes)


def test_a_shelf_from_a_stranger_ends_in_one_line_and_touches_nothing_outside(
    tmp_path: Path,
) -> None:
    outcomes = stranger.run(tmp_path, "ci", 12)
    assert len(outcomes) > 4


def test_a_repair_keeps_what_the_oracle_keeps(tmp_path: Path) -> None:
    assert sum(oracle.run(tmp_path, "ci", 6).values()) == 6


def test_a_handle_under_which_files_were_swapped_loses_nothing(tmp_path: Path) -> None:
    assert sum(swapped.run(tmp_path, "ci", 8).values()) == 8


def test_a_crafted_index_is_refused_or_answers_without_harm(tmp_path: Path) -> None:
    outcomes = graphs.run(tmp_path, "ci", 120)
    assert outcomes["refused"] and outcomes["answered"]


def test_a_handle_whose_write_failed_reads_on_and_refuses_to_write(tmp_path: Path) -> None:
    assert syscalls.Bench(tmp_path).poisoned()


def test_a_power_loss_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    outcomes = power.run(tmp_path, "ci", states=10)
    assert sum(outcomes.values()) == 10


@pytest.mark.slow
def test_a_hundred_power_losses(tmp_path: Path) -> None:
    power.run(tmp_path, "hundred", states=100)


def test_damage_anywhere_is_named_healed_or_harmless(tmp_path: Path) -> None:
    outcomes = damage.run(tmp_path, "ci", cases=30)
    assert outcomes["named"] and outcomes["harmless"]


def test_readers_never_meet_half_a_change(tmp_path: Path) -> None:
    _, busy = readers.run(tmp_path, rows=1000, readers=2)
    assert not [problem for seen in busy for problem in seen.problems]
    assert all(len(seen.generations) > 2 for seen in busy)


def test_threads_search_while_another_adds_and_compacts(tmp_path: Path) -> None:
    path, problems, done = tmp_path / "threads.shelf", [], threading.Event()
    Shelf.create(path, encoder="supplied").close()
    with Shelf.open(path) as shelf:
        readers.write(shelf, 0, 0)

        def ask() -> None:
            while not done.is_set():
                problems.append(readers.torn(shelf.snapshot(), pairs("q", 0)[None], whole=True))

        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(ask) for _ in range(2)]
            for number in range(1, 21):
                readers.write(shelf, number, number * readers.BATCH)
                if number % 8 == 0:
                    shelf.compact()
            done.set()
            for future in asked:
                future.result()
    assert len(problems) > 2
    assert not any(problems)


def test_an_interrupted_command_ends_soon_and_leaves_the_shelf_whole(tmp_path: Path) -> None:
    interrupt.run(tmp_path, "ci", times=2)


class TestShelfMachine(ShelfMachine.TestCase):  # type: ignore[misc]
    """Random changes and questions agree with a plain dictionary."""

    settings = settings(
        max_examples=3,
        stateful_step_count=12,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


assert issubclass(TestShelfMachine, unittest.TestCase)
