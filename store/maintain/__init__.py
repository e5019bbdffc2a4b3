"""Keep a shelf well: verify, repair, compact, change its encoder, export it.

Others use `verify.verify`, `repair.repair`, `compact.compact`, `reembed.reembed` and
`export.export`.

`compact` writes a new epoch that holds what the kept generations need, then flips the MANIFEST. A
crash leaves the old epoch or the new one. `repair` rebuilds what is derived, sets what is damaged
aside in `quarantine/` without deleting it, and names what is lost.

Backup: `kinshelf export all.parquet` is one at any time, of one generation. `kinshelf add` of it
restores every column of a product and both embeddings to the bit, but not history, rejects, probes
or cached images. A copy of the directory is a backup while nobody writes. While somebody writes,
copy in this order: `log-E.wal`, `vectors-E.f32`, `probes/`, `images/`, and `MANIFEST` last. Leave
out `TIP`, `LOCK`, `catalog.*` and `index-*`. Whatever the log names was written before it, so the
copy is the generation that the log had. If MANIFEST then names another epoch than the files copied,
a compaction ran meanwhile: start over. `kinshelf verify` checks the copy.
"""
