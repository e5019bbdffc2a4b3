"""Whatever Schemathesis makes of the OpenAPI document, the server has an answer for."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serve_world import in_thread, settings_for

from kinshelf import Shelf

pytestmark = pytest.mark.wide

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_schema_conformance,
]  # fmt: skip


@pytest.fixture
def server(tmp_path: Path, encoder: Any, catalogue: Path) -> Iterator[str]:
    Shelf.create(tmp_path / "toys.shelf", encoder="fake").close()
    with Shelf.open(tmp_path / "toys.shelf", encoder=encoder) as shelf:
        shelf.add(catalogue)
    with in_thread(settings_for(tmp_path / "toys.shelf"), encoder) as (url, _):
        yield url


def hammer(url: str, examples: int) -> Counter[int]:
    """`examples` cases of each operation, half of them such as the document forbids.

    Returns how often each status was answered.
    """
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    statuses: Counter[int] = Counter()
    for found in schema.get_all_operations():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with contextlib.suppress(Unsatisfiable):  # nothing is forbidden where nothing is asked
                _hammer(found.ok().as_strategy(generation_mode=mode), examples // 2, statuses)
    return statuses


def _hammer(strategy: Any, examples: int, statuses: Counter[int]) -> None:
    turn = itertools.count()

    @settings(
        max_examples=examples, database=None, derandomize=True,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=strategy)
    def ask(case: Case) -> None:
        if "product_id" in case.path_parameters and (place := next(turn)) % 2:
            case.path_parameters["product_id"] = f"p{place % 30}"  # one that was there
        response = case.call(timeout=240)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    ask()


@pytest.fixture(autouse=True)
def _quick_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails at once: a thousand epochs are allowed, but not wanted here."""

    def refuse(*_: Any, **__: Any) -> None:
        from kinshelf.db.errors import TooFewClasses

        raise TooFewClasses("not in this test")

    monkeypatch.setattr("kinshelf.serve.service.training.train_shelf", refuse)


def test_no_case_of_some_hundred_is_a_server_error(server: str) -> None:
    statuses = hammer(server, 16)
    assert sum(statuses.values()) > 200
    assert {200, 404, 422} <= set(statuses)
    assert not [status for status in statuses if status >= 500]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_case_of_two_thousand_is_a_server_error(server: str) -> None:
    statuses = hammer(server, 170)
    print(f"{sum(statuses.values())} cases: {dict(sorted(statuses.items()))}")
    assert sum(statuses.values()) >= 2000
    assert not [status for status in statuses if status >= 500]
