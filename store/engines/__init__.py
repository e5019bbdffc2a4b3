"""Shelves in databases: one `Backend` an engine, and the same handle as on a directory above it.

Others use `open.open_shelf`, `open.create_shelf` and `copy.copy_shelf`.

An engine counts, scans, fetches vectors, finds candidates and commits (`backend`). Ingest, probes
and answers are the same code. Similarities are always computed here from the vectors, so they agree
to the last bits wherever a shelf lies.

Generations: rows bear the generations that added and removed them, so nobody sees a change that is
half written. PostgreSQL commits in one transaction. Milvus has none: one entry written last is the
commit point, and the next writer takes back what an interrupted one left. Each change bears a
token: sent again after a lost answer, it is made once. One writer holds an advisory lock or a
lease.

Filters: the checked tree is translated where the engine means the same as DuckDB. DuckDB decides
the rest over the rows that the translated part lets through (`view`), up to 200,000; beyond that,
the filter is refused.

Exact or not: up to 20,000 matches, every one is scored. Beyond, the index proposes and the vectors
decide; where it finds too few, the answer is computed exactly.
"""
