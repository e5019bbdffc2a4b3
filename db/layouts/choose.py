"""What the layout of a header and a user's mapping make of its columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kinshelf.db.layouts.known import Layout, Read, layout_of, matching
from kinshelf.db.layouts.names import ALIASES, key_of
from kinshelf.db.layouts.templates import (
    Template,
    checked_template,
    is_template,
    pictures_in,
    template_of,
)

PICTURES, VARIANTS = "(pictures)", "variants"
"""Columns that are made: a list of pictures, and the variants as JSON."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The columns of fields, and how they are made: `templates` by column, `pictures` those that
    are put together as one; `hidden` are no attributes; `read` what is done to a field's cell."""

    layout: Layout | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)
    pictures: Sequence[str] = ()
    hidden: frozenset[str] = frozenset()
    read: Mapping[str, Read] = field(default_factory=dict)
    gathers: bool = False

    @property
    def made(self) -> list[str]:
        """The columns that are made."""
        several = self.gathers and bool(self.layout and self.layout.variant)
        pictures = [PICTURES] if self.pictures else []
        return [*self.templates, *pictures, *([VARIANTS] if several else [])]

    @property
    def shapes(self) -> bool:
        """Whether rows are to be changed before they are read."""
        return bool(self.made or (self.layout and self.layout.gathers))


def choose(
    columns: Sequence[str],
    mapping: Mapping[str, str],
    filled: Collection[str] | None = None,
    folder: Path | None = None,
) -> Choice:
    """The choice for a header; `filled` are the columns in which something stands, None: all.

    Raises UnknownColumn where a template of the mapping names a column that is not there.
    """
    by_key = {key_of(column): column for column in reversed(columns)}
    layout = layout_of(columns)
    templates, several = _mapped(mapping, columns, _with_fields(by_key, mapping, layout))
    if layout is None:
        fields = {"image": PICTURES} if several else {}
        hidden = frozenset(several) - set(mapping.values())
        return Choice(fields=fields, templates=templates, pictures=several, hidden=hidden)
    there = set(columns if filled is None else filled)
    found = {
        name: one
        for name, candidates in layout.fields.items()
        if name not in mapping and (one := _first(candidates, by_key, there)) is not None
    }
    beside = _beside(layout, by_key, folder)
    if beside is not None and "image" not in mapping:
        found["image"] = beside
    templates |= {one.text: one for one in found.values() if isinstance(one, Template)}
    fields = {n: one.text if isinstance(one, Template) else one for n, one in found.items()}
    pictures = several if "image" in mapping else matching(columns, layout.pictures)
    if pictures:
        fields["image"] = PICTURES
    unused = [*matching(columns, layout.ignored), *pictures]
    if _gathers(layout, by_key):
        unused += variant_columns(columns, layout)
    for name, one in found.items():  # of a category its levels stay, to be filtered by
        if isinstance(one, Template) and name != "category":
            unused += one.columns
    unused = [one for one in unused if one not in matching(columns, layout.kept)]
    hidden = frozenset(unused) - set(fields.values()) - set(mapping.values())
    read = {name: one for name, one in layout.read.items() if name in fields}
    return Choice(layout, fields, templates, pictures, hidden, read, _gathers(layout, by_key))


def _mapped(
    mapping: Mapping[str, str], columns: Sequence[str], by_key: Mapping[str, str]
) -> tuple[dict[str, Template], list[str]]:
    """The templates of a user's mapping, and the columns of its pictures where these are several.

    Raises UnknownColumn.
    """
    templates, several = dict[str, Template](), list[str]()
    for name, text in mapping.items():
        if text in columns or not is_template(text):
            continue
        parts = pictures_in(text) if name == "image" else [text]
        for part in parts if len(parts) > 1 else [text]:
            column = by_key.get(key_of(part))
            if column is None:
                templates[part] = checked_template(name, part, by_key)
            several += [column or part] if len(parts) > 1 else []
    return templates, several


def _with_fields(
    by_key: Mapping[str, str], mapping: Mapping[str, str], layout: Layout | None
) -> dict[str, str]:
    """The columns by their names, and by those of the fields: "{id}" may be any file's id."""
    found = dict(by_key)
    for name, aliases in ALIASES.items():
        own = [mapping[name]] if name in mapping else []
        of_layout = layout.fields.get(name, ()) if layout else ()
        keys = (key_of(one) for one in (*own, *of_layout, *aliases))
        if (column := next((by_key[key] for key in keys if key in by_key), None)) is not None:
            found.setdefault(name, column)
    return found


def _gathers(layout: Layout, by_key: Mapping[str, str]) -> bool:
    """Whether the columns are there by which several rows are one product."""
    children = layout.children[0] if layout.children else None
    by_name = {layout.group, layout.parent, children} & by_key.keys()
    starts = matching(by_key.values(), [layout.starts[0]]) if layout.starts else []
    return bool(by_name or starts)


def variant_columns(columns: Sequence[str], layout: Layout) -> list[str]:
    """The columns that a variant has of its own, and that are worth keeping."""
    ignored = set(matching(columns, layout.ignored))
    return [column for column in matching(columns, layout.variant) if column not in ignored]


def _first(
    candidates: Iterable[str], by_key: Mapping[str, str], filled: Collection[str]
) -> str | Template | None:
    """Of a field's columns and templates the first that is there and not empty throughout."""
    for name in candidates:
        if is_template(name):
            template = template_of(name, by_key)
            if template and not set(template.columns).isdisjoint(filled):
                return template
        elif name in by_key and by_key[name] in filled:
            return by_key[name]
    return None


def _beside(layout: Layout, by_key: Mapping[str, str], folder: Path | None) -> Template | None:
    """The template of the pictures in the folder that a data set has next to its file."""
    if layout.beside is None or folder is None or not (folder / layout.beside[0]).is_dir():
        return None
    return template_of(layout.beside[1], by_key)
