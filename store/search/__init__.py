"""Nearest products: exact, by a graph, and beside it the rows that the graph lacks.

Others use `planner` (one search over one generation), `lifecycle` (building and growing the
index), `neighbours.Neighbours`, `fusion` and `recall`.

Search is exact over the memory-mapped vectors while that is cheap. Beyond some tens of thousands of
rows `lifecycle` builds a graph over one byte a value (`hnsw`, FAISS), after the change is
committed; `links` sees to it that every row is linked to. What the graph proposes is ranked again
from the vectors. Rows that it lacks are searched exactly beside it, many of them by signed bytes
first (`unindexed`).

`recall` chooses the search parameter by the recall on perturbed rows of the shelf. DuckDB resolves
a filter first: few matches are searched exactly, and a search that finds too few is done again
exactly. `exhaustive` in an answer states whether all rows were compared. `paging` releases pages of
a large mapping, so that a million rows answer within 2 GB.

On disk the two embeddings of a row stay as the encoder gave them, so they can be exported bit for
bit; the fused embedding is the row / sqrt(2).
"""
