"""Shelves in databases: one `Backend` an engine, and the same handle as on a directory above it.

Others use `open.open_shelf`, `open.create_shelf` and `copy.copy_shelf`.
"""
