"""A feed that comes every night: what is gone, what is unchanged, and what a scheduler reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import unit, write_csv

from kinshelf import AddOptions, Shelf
from kinshelf.cli import main
from kinshelf.db.errors import FilterError, InputError
from kinshelf.db.product import Product
from kinshelf.store.feeds.feed import FeedOptions, add_feed


def feed(folder: Path, names: range, name: str = "feed.csv", **more: str) -> Path:
    """A CSV of products and the embeddings of their texts beside it."""
    rows = [{"id": f"p{i}", "title": f"thing {i}", "price": str(i), **more} for i in names]
    return write_csv(folder / name, rows)


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """The command, over a shelf whose products come with their embeddings."""
    path = tmp_path / "s.shelf"
    Shelf.create(path, encoder="fake").close()

    def ran(*arguments: str | Path) -> Result:
        sources = [a for a in arguments if isinstance(a, Path)]
        rows = sum(len(s.read_text().splitlines()) - 1 for s in sources) if sources else 1
        rng = np.random.default_rng(0)
        np.save(tmp_path / "text.npy", unit(rng.standard_normal((rows, 4))))
        line = ["add", *map(str, arguments), "--text-embeddings", str(tmp_path / "text.npy")]
        return CliRunner().invoke(main, [*line, "--shelf", str(path)])

    return ran


@pytest.fixture
def opened(tmp_path: Path, run: Any) -> Any:
    with Shelf.open(tmp_path / "s.shelf") as shelf:
        yield shelf


def ids(shelf: Any, where: str | None = None) -> set[str]:
    return {p["id"] for p in shelf.products(where)}


def test_what_the_feed_no_longer_has_is_marked_and_unmarked_when_it_comes_back(
    run: Any, opened: Any, tmp_path: Path
) -> None:
    run(feed(tmp_path, range(40)))
    done = run(feed(tmp_path, range(1, 40)), "--prune")
    assert done.exit_code == 0, done.output
    assert "1 products are marked as gone (p0)" in done.stderr
    assert ids(opened, "gone") == {"p0"}
    assert len(ids(opened)) == 40
    again = run(feed(tmp_path, range(1, 40)), "--prune")
    assert "0 products are marked as gone" in again.stderr
    run(feed(tmp_path, range(40)))
    assert ids(opened, "gone") == set()
    assert opened.get("p0").product.attributes == {}


def test_pruning_can_remove_and_is_undone_with_what_the_same_run_added(
    run: Any, opened: Any, tmp_path: Path
) -> None:
    run(feed(tmp_path, range(40)))
    done = run(feed(tmp_path, range(1, 42)), "--prune", "remove", "--json")
    found = json.loads(done.stdout)
    assert (found["inserted"], found["pruned"]["changed"]) == (2, 1)
    assert ids(opened) == {f"p{i}" for i in range(1, 42)}
    newest = opened.operations()[0]
    assert (newest["inserted"], newest["removed"], newest["generations"]) == (2, 1, 2)
    opened.undo()
    assert ids(opened) == {f"p{i}" for i in range(40)}


def test_more_than_the_limit_is_never_pruned_unless_told_to(
    run: Any, opened: Any, tmp_path: Path
) -> None:
    run(feed(tmp_path, range(40)))
    half = feed(tmp_path, range(20))
    done = run(half, "--prune", "remove", "--report", str(tmp_path / "report.json"))
    assert done.exit_code == 1
    assert "20 of 40 products" in done.stderr
    assert "none was pruned" in done.stderr
    assert len(ids(opened)) == 40
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["pruned"]["refused"], report["pruned"]["gone"]) == (True, 20)
    assert run(half, "--prune", "remove", "--prune-limit", "50%").exit_code == 0
    assert len(ids(opened)) == 20
    assert run(half, "--prune-limit", "5 apples").exit_code == 2


def test_what_belongs_to_pruning_is_refused_without_it(run: Any, tmp_path: Path) -> None:
    for words in (("--prune-where", "price > 3"), ("--prune-limit", "10%")):
        done = run(feed(tmp_path, range(2)), *words)
        assert (done.exit_code, "go with --prune" in done.output) == (3, True)


def test_one_feed_of_several_prunes_its_own_products_alone(
    run: Any, opened: Any, tmp_path: Path
) -> None:
    run(feed(tmp_path, range(30), "a.csv", feed="a"))
    run(feed(tmp_path, range(30, 60), "b.csv", feed="b"))
    run(feed(tmp_path, range(1, 30), "a.csv", feed="a"), "--prune", "--prune-where", "feed = 'a'")
    assert ids(opened, "gone") == {"p0"}
    with pytest.raises(FilterError):
        opened.prune([], where="feed =")


def test_rows_that_were_rejected_are_not_gone(opened: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    products = [Product(f"p{i}", "t") for i in range(40)]
    opened.upsert(products, None, unit(rng.standard_normal((40, 4))))
    rows = unit(rng.standard_normal((40, 4)))
    rows[3] = np.nan
    np.save(tmp_path / "text.npy", rows)
    options = AddOptions(text_embeddings=tmp_path / "text.npy")
    source = feed(tmp_path, range(40))

    def add(path: Path | None, how: AddOptions) -> Any:
        assert path is not None
        return opened.add(path, how)

    done = add_feed(opened, [source], options, FeedOptions(prune="remove"), add)
    assert done.added.rejected == 1
    assert done.pruned is not None
    assert done.pruned.gone == 0
    with pytest.raises(InputError, match="from 0 to 1"):
        add_feed(opened, [source], options, FeedOptions(prune="mark", prune_limit=5), add)


def test_an_interrupted_run_prunes_nothing(opened: Any, tmp_path: Path, run: Any) -> None:
    run(feed(tmp_path, range(40)))
    source = feed(tmp_path, range(1, 40))

    def add(path: Path | None, how: AddOptions) -> Any:
        options = AddOptions(batch_size=5, list_ids=how.list_ids)
        np.save(tmp_path / "t.npy", unit(np.ones((39, 4))))
        assert path is not None
        options = AddOptions(
            batch_size=5, list_ids=True, text_embeddings=tmp_path / "t.npy"
        )  # fmt: skip
        return opened.add(path, options, stop=lambda: True)

    done = add_feed(opened, [source], AddOptions(), FeedOptions(prune="mark"), add, lambda: True)
    assert done.added.interrupted
    assert done.pruned is None
    assert ids(opened, "gone IS NOT NULL" if "gone" in opened.snapshot().view.attribute_types()
               else "id = 'none'") == set()  # fmt: skip


def test_a_source_that_did_not_change_is_passed_over_until_it_does(
    run: Any, opened: Any, tmp_path: Path
) -> None:
    source = feed(tmp_path, range(10))
    skip = (source, "--skip-unchanged-source", "--json")
    assert json.loads(run(*skip).stdout)["inserted"] == 10
    second = json.loads(run(*skip).stdout)
    assert second["unchanged_sources"] == [str(source)]
    assert second["unchanged"] == 0
    opened.remove(["p3"])
    assert json.loads(run(*skip).stdout)["inserted"] == 1
    other = json.loads(run(*skip, "--on-conflict", "skip").stdout)
    assert (other["skipped"], other["unchanged_sources"]) == (10, [])
    feed(tmp_path, range(11))
    assert json.loads(run(*skip).stdout)["inserted"] == 1


def test_a_source_whose_pruning_was_refused_is_not_passed_over(
    run: Any, opened: Any, tmp_path: Path
) -> None:
    run(feed(tmp_path, range(40)))
    nightly = (feed(tmp_path, range(20)), "--prune", "remove", "--skip-unchanged-source")
    assert run(*nightly).exit_code == 1
    again = run(*nightly)
    assert again.exit_code == 1
    assert "20 of 40 products" in again.stderr
    assert run(*nightly, "--prune-limit", "60%").exit_code == 0
    assert len(ids(opened)) == 20
    assert str(nightly[0]) in json.loads(run(*nightly, "--json").stdout)["unchanged_sources"]


def test_several_sources_are_one_operation(run: Any, opened: Any, tmp_path: Path) -> None:
    first, second = feed(tmp_path, range(3), "a.csv"), feed(tmp_path, range(3), "b.csv")
    second.write_text(second.read_text().replace("p", "q").replace("qrice", "price"))
    rng = np.random.default_rng(0)
    np.save(tmp_path / "t.npy", unit(rng.standard_normal((3, 4))))
    done = CliRunner().invoke(main, [
        "add", str(first), str(second), "--shelf", str(opened.path), "--text-embeddings",
        str(tmp_path / "t.npy"),
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    (only,) = opened.operations()
    assert (only["command"], only["inserted"]) == ("add a.csv, add b.csv", 6)
    opened.undo(only["operation"])
    assert ids(opened) == set()


def test_a_run_that_fails_leaves_a_report_that_states_why(run: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    line = ["add", str(tmp_path / "none.csv"), "--shelf", str(tmp_path / "s.shelf")]
    done = CliRunner().invoke(main, [*line, "--report", str(report)])
    assert done.exit_code == 3
    assert json.loads(report.read_text())["error"]["type"] == "SourceNotFound"
    done = CliRunner().invoke(main, [*line, "--report", str(tmp_path / "no" / "r.json")])
    assert "make it first" in done.stderr
