"""Results of the shelf's methods, as dataclasses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

    from kinshelf.db.product import Reject
    from kinshelf.db.sources.prepare import Preparation, TrainingSetOptions

OnConflict = Literal["update", "skip", "error"]


@dataclass(frozen=True, slots=True)
class AddOptions:
    """Options of `Shelf.add` for reading and treating a source.

    `mapping` maps our field names to the source's columns, or to templates such as
    "{brand} {name}"; `images` is the folder that relative image paths start from, `image_by_id` one
    whose pictures are named by the products' ids; `image_embeddings` and `text_embeddings` are
    `.npy` files whose row i belongs to data row i of the source; `batch_size` products are
    committed at a time; `delimiter`, `encoding`, `skip_rows` (above the header) and `sheet` (of a
    spreadsheet) None mean what the file shows. With `refresh_images` the server of
    each cached picture is asked for a newer version; None: of products that are new or changed.
    `list_ids`: have the report hold every id of the source, as `prune` needs them.
    """

    mapping: dict[str, str] = field(default_factory=dict)
    images: Path | None = None
    image_embeddings: Path | None = None
    text_embeddings: Path | None = None
    on_conflict: OnConflict = "update"
    training: TrainingSetOptions | None = None
    batch_size: int | None = None
    allow_private_hosts: bool = False
    delimiter: str | None = None
    encoding: str | None = None
    refresh_images: bool | None = None
    skip_rows: int | None = None
    sheet: str | None = None
    image_by_id: Path | None = None
    list_ids: bool = False

    @property
    def supplies_embeddings(self) -> bool:
        """Whether embeddings come from files rather than from the shelf's encoder."""
        return self.image_embeddings is not None or self.text_embeddings is not None


@dataclass(frozen=True, slots=True)
class TrainingSetSummary:
    """The choice of a training set, per category, and the rows left out with the reason; `added`:
    these are on the shelf all the same, and do not train."""

    classes: dict[str, int]
    train: int
    val: int
    left_out: list[dict[str, Any]]
    uncategorised: int
    added: bool = True
    splits_kept: int = 0

    @classmethod
    def of(cls, prepared: Preparation) -> TrainingSetSummary:
        """The summary of a source that was prepared and read."""
        left_out = [asdict(entry) for entry in prepared.left_out]
        sizes = prepared.train, prepared.val
        return cls(
            dict(prepared.classes), *sizes, left_out, prepared.uncategorised,
            added=not prepared.options.exact, splits_kept=prepared.splits_kept,
        )  # fmt: skip

    def lines(self) -> list[str]:
        """For a person."""
        taken = sum(self.classes.values())
        lines = [f"training set: {taken} rows of {len(self.classes)} categories"]
        if self.val:
            lines[0] += f", {self.train} to train and {self.val} to validate"
        out = Counter[str]()
        for entry in self.left_out:
            out[entry["reason"]] += entry["rows"]
        out["uncategorised"] = self.uncategorised
        if self.splits_kept:
            lines.append(f"  {self.splits_kept} rows keep the split that they have on the shelf")
        how = "added, does not train" if self.added else "left out"
        return lines + [f"  {how}, {why}: {rows} rows" for why, rows in out.items() if rows]


_SUMMED = (
    "inserted", "updated", "unchanged", "skipped", "rejected", "image_failed", "encoded_images",
    "encoded_texts", "truncated_texts", "decisions_kept", "disputed", "seconds", "fields",
    "reasons",
)  # fmt: skip


@dataclass(slots=True)
class AddReport:
    """Counts of a source's rows. Every row is in exactly one of the first five counts.

    `fields` counts the fields that were changed, by name. `decisions_kept` counts the values of
    the source that a person's decision stood against, `disputed` the products of which the source
    has changed since.
    Rows that hold no product, such as a header that comes again, are in `reasons` alone. `ids` are
    those of the source where `AddOptions.list_ids` asked for them, rejected rows' included. `notes`
    state how a file was read where that is not what its suffix promises.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    rejected: int = 0
    image_failed: int = 0
    encoded_images: int = 0
    encoded_texts: int = 0
    truncated_texts: int = 0
    decisions_kept: int = 0
    disputed: int = 0
    generation: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    fields: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    training_set: TrainingSetSummary | None = None
    notes: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set, repr=False)

    def note(self, reject: Reject) -> None:
        """Count a reject and keep the first message of each reason."""
        self.rejected += not reject.kept
        self.reasons[reject.reason] += 1
        self.examples.setdefault(reject.reason, reject.message)

    @classmethod
    def total(cls, reports: Sequence[AddReport]) -> AddReport:
        """The sum of several sources' reports."""
        whole = cls()
        for report in reports:
            for name in _SUMMED:
                setattr(whole, name, getattr(whole, name) + getattr(report, name))
            whole.generation = report.generation
            whole.interrupted |= report.interrupted
            whole.examples = report.examples | whole.examples
            whole.notes = list(dict.fromkeys([*whole.notes, *report.notes]))
            whole.training_set = report.training_set or whole.training_set
            whole.ids |= report.ids
        return whole

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        found = asdict(self) | {"fields": dict(self.fields), "reasons": dict(self.reasons)}
        del found["ids"]
        return found


class Rows(list[dict[str, Any]]):
    """A table as plain dicts, one a row; `to_pandas()` gives it as a frame."""

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A pandas.DataFrame, one row a dict; `columns` names those that an empty table has."""
        import pandas as pd

        return pd.DataFrame(list(self), columns=None if columns is None else list(columns))


def fields_of(value: Any) -> dict[str, Any]:
    """The fields of a dataclass with slots, as they are: `asdict` copies, at ten times the cost."""
    return {name: getattr(value, name) for name in value.__slots__}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One product near a query; image and text similarity are None where a modality is missing.

    `matched` is, of a product with several pictures, the one that the query's resembles most.
    """

    id: str
    title: str
    category: str | None
    image: str | None
    similarity: float
    image_similarity: float | None
    text_similarity: float | None
    row: int
    matched: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields of the JSON contract."""
        found = fields_of(self)
        del found["row"]
        return found


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Neighbours of one query, nearest first, and the state that they were computed from.

    `facets` has for each column that was asked for the values of the products that match and their
    counts, `{"value": ..., "count": ...}` each.
    """

    neighbours: list[Neighbour]
    generation: int
    fingerprint: str
    exhaustive: bool
    facets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def to_pandas(self) -> pd.DataFrame:
        """One row a neighbour, nearest first."""
        names = [name for name in Neighbour.__slots__ if name != "row"]
        return Rows(each.as_dict() for each in self.neighbours).to_pandas(names)

    def as_dict(self) -> dict[str, Any]:
        """For `--json` of many queries."""
        return fields_of(self) | {"neighbours": [each.as_dict() for each in self.neighbours]}


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of `verify`: its place, the fault and the remedy.

    `harmless`: a remainder that costs nothing but space; the shelf is whole without it.
    """

    file: str
    problem: str
    remedy: str
    harmless: bool = False


@dataclass(frozen=True, slots=True)
class CompactReport:
    """The result of a compaction. `oldest` is the oldest generation that can still be read.

    `rows_kept` and `rows_dropped` count stored rows, those of older generations included;
    bytes are those of log and vectors. `images_dropped` of the cache had no product any more.
    """

    generation: int
    oldest: int
    epoch: int
    rows_kept: int
    rows_dropped: int
    bytes_before: int
    bytes_after: int
    images_dropped: int = 0
    image_bytes_dropped: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ProbeEntry:
    """A probe of a shelf: its number, where its files lie, and its entry in the log."""

    version: int
    path: Path
    generation: int
    trained_on: int
    metrics: dict[str, Any]
    files: dict[str, str]
