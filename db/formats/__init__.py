"""Files and folders become rows: one reader a format, behind one protocol.

Others use `source.RowSource` and `open.open_rows`.
"""
