"""Products: sources, tables, filters and pictures.

Rooms: `catalog` (DuckDB), `sources` (readers), `filters` (a user's `--where`), `images`. At the
root: `errors`, `product`, `text`, `arrays` and `threads`, which every other folder may use.
"""
