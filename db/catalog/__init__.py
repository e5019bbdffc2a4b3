"""The DuckDB catalogue: its tables, migrations, queries, facets, and SQL for users.

Others use `tables.Catalog`, `queries.View`, `queries.StoredProduct`, `facets.count_facets` and
`sql.Table`.
"""
