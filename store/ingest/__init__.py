"""Products come in: a source or rows become embeddings and one committed change a batch.

Others use `add` (sources and `upsert`), `edit` (remove, relabel, revert) and `queries` (a picture
or text becomes a row to search with).
"""
