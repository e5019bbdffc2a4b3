"""The DuckDB catalogue: its tables, migrations, queries, and SQL for users.

Others use `tables.Catalog`, `queries.View`, `queries.StoredProduct` and `sql.Table`.
"""
