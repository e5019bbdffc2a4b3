"""Known-item search by keywords, meaning and both: a title with a word dropped, or one misspelt.

    python bench/keywords.py

`amazon` are 600 real titles beside the repository, `sample` the shipped catalogue with the tiny
CLIP. Only `sample` has an encoder here, so that meaning and hybrid are measured there alone. bm25s
(`pip install bm25s`) ranks the same titles beside it where it is installed.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import kinshelf as ks
from kinshelf.samples import catalogue_dir, tiny_clip_dir

AMAZON = Path(__file__).resolve().parents[2] / "shared" / "amazon2020" / "products.csv"
ASKED = 100


def titles(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        found = dict.fromkeys(row["title"].strip() for row in csv.DictReader(file))
    return [title for title in found if len(title.split()) > 2]


def dropped(title: str, random: np.random.Generator) -> str:
    words = title.split()
    del words[random.integers(len(words))]
    return " ".join(words)


def misspelt(title: str, random: np.random.Generator) -> str:
    """One letter of one word of 4 or more exchanged, doubled or left out."""
    words = title.split()
    long = [i for i, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not long:
        return title
    place = long[random.integers(len(long))]
    word, at = words[place], int(random.integers(1, len(words[place]) - 1))
    forms = (
        word[:at] + "e" + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + word[at + 1 :],
    )
    words[place] = forms[random.integers(3)]
    return " ".join(words)


def by_bm25s(texts: list[str]) -> Callable[[str], list[int]] | None:
    try:
        import bm25s
    except ImportError:
        return None
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(texts, stopwords=None, show_progress=False), show_progress=False)

    def search(query: str) -> list[int]:
        tokens = bm25s.tokenize([query], stopwords=None, show_progress=False)
        found = retriever.retrieve(tokens, k=10, show_progress=False)[0]
        return [int(place) for place in found[0]]

    return search


def methods(shelf: ks.Shelf, texts: list[str], modes: list[str]) -> Iterator[tuple[str, Callable]]:
    for mode in modes:

        def search(query: str, mode: str = mode) -> list[int]:
            near = shelf.similar(text=query, mode=mode, against="text").neighbours  # type: ignore[arg-type]
            return [int(each.id) for each in near]

        yield mode, search
    if beside := by_bm25s(texts):
        yield "bm25s", beside


def measured(name: str, shelf: ks.Shelf, texts: list[str], modes: list[str]) -> None:
    random = np.random.default_rng(0)
    places = random.permutation(len(texts))[:ASKED].tolist()
    for what, change in (("a word dropped", dropped), ("a word misspelt", misspelt)):
        queries = [change(texts[place], random) for place in places]
        for method, search in methods(shelf, texts, modes):
            found = [search(query) for query in queries]
            first = np.mean([f[:1] == [p] for f, p in zip(found, places, strict=True)])
            ten = np.mean([p in f[:10] for f, p in zip(found, places, strict=True)])
            print(f"{name:8} {what:16} {method:9} found first {first:.3f}, among ten {ten:.3f}")


def main() -> None:
    sources = {"sample": catalogue_dir() / "products.csv", "amazon": AMAZON}
    for name, path in sources.items():
        if not path.is_file():
            continue
        texts = titles(path)
        goods = [ks.Product(str(i), title=text) for i, text in enumerate(texts)]
        with (
            tempfile.TemporaryDirectory() as folder,
            ks.create(Path(folder) / "a.shelf", encoder=str(tiny_clip_dir())) as shelf,
        ):
            shelf.upsert(goods)
            modes = ["keywords"] if name == "amazon" else ["keywords", "meaning", "hybrid"]
            measured(name, shelf, texts, modes)


if __name__ == "__main__":
    main()
