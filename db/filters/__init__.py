"""A user's condition over products: parsed, checked, compiled to SQL with bound values.

Others use `filter.compile_where` and `filter.Filter`; engines translate the tree of `parser`.
"""
