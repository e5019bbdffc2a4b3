"""The figures of bench/peers.py as a table and as a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers_list import PEERS

Figures = dict[str, Any]
RECALL = 0.99
WIDTH, NAME = 30, 14
NONE = "-"


@dataclass(frozen=True)
class Column:
    """One figure: its heading, how to find it, and the recall that it was reached with."""

    title: str
    value: Callable[[Figures], float | None]
    more_is_better: bool = False
    recall: Callable[[Figures], float | None] = lambda _: None


def _plain(title: str, key: str, *, more: bool = False, recall: str = "") -> Column:
    reached = (lambda f: f.get(recall)) if recall else lambda _: None
    return Column(title, lambda f: f.get(key), more, reached)


def _filter(case: str, title: str, key: str = "ms") -> Column:
    def get(name: str) -> Callable[[Figures], float | None]:
        return lambda f: f["filters"].get(case, {}).get(name)

    return Column(title, get(key), recall=get("recall"))


def at_recall(curve: list[tuple[float, float]], recall: float = RECALL) -> float | None:
    """The milliseconds of that recall, on a line between the two points of the curve beside it."""
    before: tuple[float, float] | None = None
    for reached, taken in curve:
        if reached >= recall:
            if before is None or reached == before[0]:
                return taken
            share = (recall - before[0]) / (reached - before[0])
            return before[1] + share * (taken - before[1])
        before = reached, taken
    return None


BLOCKS: tuple[tuple[str, tuple[Column, ...]], ...] = (
    ("taking in and opening", (
        _plain("ingest rows/s", "ingest_rows_s", more=True),
        _plain("with index rows/s", "built_rows_s", more=True),
        _plain("open + 1st query s", "first_s"),
        _plain("disk MB", "disk_mb"),
    )),
    ("queries, k = 10, at the first setting of recall 0.99; and on the curve at just that", (
        _plain("one, p50 ms", "query_ms", recall="recall"),
        Column("at equal recall, ms", lambda f: at_recall(f.get("curve", []))),
        _plain("batch queries/s", "batch_qs", more=True, recall="batch_recall"),
        _plain("resident MB", "resident_mb"),
        _plain("private MB", "private_mb"),
    )),
    ("filters by a category that is the query's own, or the least like it; p50 ms and recall", (
        _filter("1 % own", "1 % own"), _filter("1 % other", "1 % other"),
        _filter("10 % own", "10 % own"), _filter("10 % other", "10 % other"),
    )),
    ("a filter that was not used before: the first time", (
        _filter("1 % own", "1 % own", "new_ms"), _filter("1 % other", "1 % other", "new_ms"),
        _filter("10 % own", "10 % own", "new_ms"), _filter("10 %", "10 %, price", "new_ms"),
    )),
    ("filters that have nothing to do with the query; p50 ms and recall", (
        _filter("50 %", "50 %"), _filter("20 %", "20 %"), _filter("5 %", "5 %"),
        _filter("2 %", "2 %"),
    )),
    ("", (
        _filter("1 %", "1 %"), _filter("0.5 %", "0.5 %"), _filter("0.1 %", "0.1 %"),
        _filter("0.05 %", "0.05 %"),
    )),
    ("changes", (
        _plain("add 1,000 ms", "add_ms"), _plain("next query / before", "next_ratio"),
        _plain("later ones / before", "after_ratio"), _plain("delete 100 ms", "delete_ms"),
    )),
)  # fmt: skip


def number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cell(column: Column, figures: Figures, ours: Figures | None) -> str:
    value = column.value(figures)
    if value is None:
        return NONE.rjust(WIDTH)
    text = number(value)
    base = column.value(ours) if ours else None
    if base and ours is not figures:
        text += f" ({number(value / base)}x)"
    reached = column.recall(figures)
    text += f" r{reached:.3f}" if reached is not None else ""
    return (text + _spread(column, figures, value)).rjust(WIDTH)


def _spread(column: Column, figures: Figures, middle: float) -> str:
    """How far the runs lie from their median, the farthest of them."""
    runs = [value for run in figures.get("runs", ()) if (value := column.value(run)) is not None]
    if len(runs) < 2 or not middle:
        return ""
    return f" ±{100 * max(abs(value - middle) for value in runs) / middle:.0f}%"


def table(of: str, results: dict[str, Figures]) -> str:
    """All figures of so many rows of one kind as text; in brackets the multiple of kinshelf's."""
    named = [name for name in PEERS if name in results]
    ours = results.get("kinshelf")
    lines = [f"\n{of}; (Nx): N times kinshelf's figure; r: recall@10; ±: the farthest of several"]
    lines += sorted(
        {
            f"{f['machine']}, {len(f.get('runs', [0]))} runs, load {f['load']:.1f}"
            for f in results.values()
        }
    )
    for heading, columns in BLOCKS:
        titles = "".join(column.title.rjust(WIDTH) for column in columns)
        lines += ["", heading, " " * NAME + titles] if heading else [" " * NAME + titles]
        lines += [
            PEERS[name].name.ljust(NAME)
            + "".join(_cell(column, results[name], ours) for column in columns)
            for name in named
        ]
    return "\n".join([*lines, "", *_notes(named, results)])


def _notes(named: list[str], results: dict[str, Figures]) -> list[str]:
    """Settings, and what a peer did not do."""
    lines = []
    for name in named:
        figures = results[name]
        setting = ", ".join(f"{key} {value}" for key, value in figures["setting"].items())
        short = sum(case["short"] for case in figures["filters"].values())
        notes = [setting] if setting else []
        if (batch := figures.get("batch_setting", figures["setting"])) != figures["setting"]:
            notes.append(f"batch: {', '.join(f'{key} {value}' for key, value in batch.items())}")
        if figures["recall"] < RECALL:
            notes.append(f"recall {figures['recall']:.3f} at its last setting")
        if short:
            notes.append(f"too few answers to {short} filtered queries")
        if not figures["add_found"]:
            notes.append("an added product was not found at once")
        if not figures.get("delete_gone", True):
            notes.append("a deleted product was found")
        lines.append(f"{PEERS[name].name} {figures['version']}: {'; '.join(notes) or 'as it is'}")
    return lines


PANELS = (
    ("ingest with index, rows/s →", BLOCKS[0][1][1]), ("← open + first query, s", BLOCKS[0][1][2]),
    ("← one query, ms", BLOCKS[1][1][0]), ("batch of 1,000, queries/s →", BLOCKS[1][1][2]),
    ("← filter 1 %, other category, ms", BLOCKS[2][1][1]),
    ("← filter 10 %, other category, ms", BLOCKS[2][1][3]),
    ("← add 1,000, durable, ms", BLOCKS[6][1][0]), ("← resident, MB", BLOCKS[1][1][3]),
)  # fmt: skip


def draw(of: str, results: dict[str, Figures], path: Path) -> None:
    """Bars on logarithmic scales; pale where recall is below 0.99."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    named = [name for name in PEERS if name in results][::-1]
    figure, axes = plt.subplots(2, 4, figsize=(13, 6), sharey=True, facecolor="white")
    for axis, (title, column) in zip(axes.flat, PANELS, strict=True):
        _panel(axis, column, [(name, results[name]) for name in named])
        axis.set_title(title, fontsize=10, loc="left")
    machine = next(iter(results.values()))["machine"]
    figure.suptitle(f"{of}; {machine}; arrows point to better;"
                    " pale: recall@10 below 0.99", fontsize=9, x=0.01, ha="left")  # fmt: skip
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _panel(axis: Any, column: Column, results: list[tuple[str, Figures]]) -> None:
    axis.set_xscale("log")
    for place, (name, figures) in enumerate(results):
        value, reached = column.value(figures), column.recall(figures)
        if value is None:
            continue
        weak = reached is not None and reached < RECALL
        colour = "#c2410c" if name == "kinshelf" else "#64748b"
        axis.barh(place, value, color=colour, alpha=0.3 if weak else 1, height=0.7)
        note = f" recall {reached:.3f}" if weak else ""
        axis.text(value, place, f" {number(value)}{note}", va="center", fontsize=7)
    axis.set_yticks(range(len(results)), [PEERS[name].name for name, _ in results], fontsize=8)
    axis.margins(x=0.35)
    axis.tick_params(axis="x", labelsize=7)
    axis.tick_params(axis="x", which="minor", labelbottom=False)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def draw_curves(of: str, results: dict[str, Figures], path: Path) -> None:
    """Recall against the time of a single query, a line a peer: compare them at equal recall."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 5), facecolor="white")
    for name in (name for name in PEERS if results.get(name, {}).get("curve")):
        recall, taken = zip(*results[name]["curve"], strict=True)
        style = {"color": "#c2410c", "linewidth": 2.5} if name == "kinshelf" else {"linewidth": 1}
        axis.plot(taken, recall, marker="o", markersize=3, label=PEERS[name].name, **style)
    axis.axhline(RECALL, color="#94a3b8", linewidth=0.8, linestyle="--")
    axis.set(xscale="log", xlabel="one query, median ms", ylabel="recall@10", ylim=(0.9, 1.002))
    machine = next(iter(results.values()))["machine"]
    axis.set_title(f"{of}; {machine}", fontsize=8, loc="left")
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
