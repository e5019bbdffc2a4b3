"""Keywords beside meaning: BM25 over what is written of products, by tantivy.

Title, description, brand, category, id and attributes are one text a product. Words are compared
without case and accents, and by their stem where a language is named. A code with punctuation is
found whole and by its parts: "B07-KMV" as B07KMV, and as B07 followed by KMV. A word that no
product has stands for those that differ in one letter, of 8 letters and more in two.

The index is derived: it lies in the memory of the process, is made of the catalogue at the first
question, and takes in new rows at each later one. Rows are never reused, so that one index serves
every generation; a word's rarity is counted over all rows, those superseded included.
"""

from __future__ import annotations

import re
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from kinshelf.db.arrays import FloatArray, IntArray
from kinshelf.db.errors import InputError
from kinshelf.db.text import normalise

if TYPE_CHECKING:
    import tantivy

    from kinshelf.db.catalog.tables import Catalog
    from kinshelf.store.generation import AnySnapshot

STEMS = (
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian",
    "italian", "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "tamil",
    "turkish",
)  # fmt: skip
"""The languages whose words tantivy stems."""
_MEMORY = 32 << 20
"""Bytes that building may take; tantivy wants 15 MB at least."""
_CODE = re.compile(r"\w+(?:[-./_]\w+)+")
_FUZZY, _FUZZIER = 4, 8
"""Letters of an unknown word from which on it may differ in one, and in two."""
_DEEPER = 8


class Keywords:
    """The index of one catalogue, in one language or none."""

    def __init__(self, stem: str | None = None) -> None:
        import tantivy

        schema = tantivy.SchemaBuilder()
        schema.add_integer_field("row", fast=True)
        schema.add_text_field("words", tokenizer_name="words")
        self.schema = schema.build()
        self.analyzer = _analyzer(stem)
        self._index = tantivy.Index(self.schema)
        self._index.register_tokenizer("words", self.analyzer)
        self._rows = -1
        self._turn = threading.Lock()

    @classmethod
    def of(cls, now: AnySnapshot, stem: str | None = None) -> Keywords:
        """Of the catalogue of a generation, up to its newest row. Raises InputError."""
        if stem is not None and stem not in STEMS:
            raise InputError(f"stem is {stem!r}: give one of {', '.join(STEMS)}")
        known = _INDEXES.setdefault(now.view.catalog, {})
        index = known.setdefault(stem, cls(stem)) if stem not in known else known[stem]
        index.catch_up(now)
        return index

    def catch_up(self, now: AnySnapshot) -> None:
        """Take in the rows that came since."""
        import tantivy

        with self._turn:
            writer, last = None, self._rows
            try:
                for block in now.view.written_after(last):
                    writer = writer or self._index.writer(_MEMORY, 1)
                    for row, *texts in block:
                        document = tantivy.Document()
                        document.add_integer("row", row)
                        document.add_text("words", _written(texts))
                        writer.add_document(document)
                    last = block[-1][0]
                if writer is not None:
                    writer.commit()
            finally:
                if writer is not None:
                    writer.wait_merging_threads()  # which lets go of its lock
            if last != self._rows:
                self._index.reload()
                self._rows = last  # not before: what failed half-way is read again

    def best(self, query: tantivy.Query, k: int, kept: IntArray) -> tuple[IntArray, FloatArray]:
        """The k rows of highest BM25 among those kept (ascending), the lower row first among
        equals: rows and scores, (k or fewer,) each."""
        searcher = self._index.searcher()
        depth = _DEEPER * k
        while True:
            hits = searcher.search(query, max(depth, 1), count=False).hits
            rows = np.array(
                searcher.fast_field_values("row", [address for _, address in hits]), dtype=np.int64
            )
            scores = np.array([score for score, _ in hits], dtype=np.float32)
            there = np.isin(rows, kept)
            # The last of those found may have equals that were cut off.
            sure = there & (scores > scores[-1]) if len(hits) == depth else there
            if len(hits) < depth or np.count_nonzero(sure) >= k:
                order = np.lexsort((rows[there], -scores[there]))[:k]
                return rows[there][order], scores[there][order]
            depth *= _DEEPER

    def any_of(self, text: str) -> tantivy.Query:
        """Products that have any word of a text."""
        import tantivy

        words = [self._word(word) for word in normalise(text).split()]
        return tantivy.Query.boolean_query(
            [(tantivy.Occur.Should, word) for word in words if word is not None]
        )

    def all_of(self, search: str) -> tantivy.Query:
        """Products that have all words of a search; none that follows a minus."""
        import tantivy

        parts = []
        for word in normalise(search).split():
            without = word.startswith("-") and len(word) > 1
            query = self._word(word[1:] if without else word, fuzzy=not without)
            if query is not None:
                parts.append((tantivy.Occur.MustNot if without else tantivy.Occur.Must, query))
        if parts and all(occur == tantivy.Occur.MustNot for occur, _ in parts):
            parts.append((tantivy.Occur.Must, tantivy.Query.all_query()))
        return tantivy.Query.boolean_query(parts)

    def _word(self, word: str, *, fuzzy: bool = True) -> tantivy.Query | None:
        import tantivy

        tokens = self.analyzer.analyze(word)
        if not tokens:
            return None
        if len(tokens) == 1:
            return self._term(tokens[0], fuzzy=fuzzy)
        phrase = tantivy.Query.phrase_query(self.schema, "words", [*tokens])
        joined = self._term("".join(tokens), fuzzy=False)
        return tantivy.Query.disjunction_max_query([phrase, joined])

    def _term(self, token: str, *, fuzzy: bool) -> tantivy.Query:
        import tantivy

        known = self._index.searcher().doc_freq("words", token) > 0
        if known or not fuzzy or len(token) < _FUZZY:
            return tantivy.Query.term_query(self.schema, "words", token)
        distance = 1 + (len(token) >= _FUZZIER)
        return tantivy.Query.fuzzy_term_query(self.schema, "words", token, distance)


_INDEXES: weakref.WeakKeyDictionary[Catalog, dict[str | None, Keywords]] = (
    weakref.WeakKeyDictionary()
)


def _analyzer(stem: str | None) -> tantivy.TextAnalyzer:
    import tantivy

    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    builder = builder.filter(tantivy.Filter.lowercase()).filter(tantivy.Filter.ascii_fold())
    if stem is not None:
        builder = builder.filter(tantivy.Filter.stemmer(stem))
    return builder.build()


def _written(texts: list[Any]) -> str:
    """What is written of a product, and its codes once more without their punctuation."""
    text = " ".join(normalise(str(each)) for each in texts if each)
    codes = (code for code in _CODE.findall(text) if any(map(str.isdigit, code)))
    return " ".join([text, *(re.sub(r"[\W_]", "", code) for code in codes)])


def found(
    now: AnySnapshot, search: str, *, where: str | None = None, stem: str | None = None
) -> IntArray:
    """Rows of the products that have all words of a search and match, the best first, (n,)."""
    index, kept = Keywords.of(now, stem), now.rows(where)
    return index.best(index.all_of(search), max(len(kept), 1), kept)[0]
