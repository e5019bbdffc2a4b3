"""Nearest products: exact, by a graph, and beside it the rows that the graph lacks.

Others use `planner` (one search over one generation), `lifecycle` (building and growing the
index), `neighbours.Neighbours`, `fusion` and `recall`.
"""
