"""Sources become products: readers of files and folders, layouts of shops, columns, training sets.

Others use `readers.read_source`, `readers.ReadOptions`, `readers.ReadBatch`, `prepare`, `parts`
and `embeddings`.
"""
