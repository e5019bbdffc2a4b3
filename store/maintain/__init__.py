"""Keep a shelf well: verify, repair, compact, change its encoder, export it.

Others use `verify.verify`, `repair.repair`, `compact.compact`, `reembed.reembed` and
`export.export`.
"""
