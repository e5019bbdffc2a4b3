"""A shelf in PostgreSQL with pgvector. Others use `backend.PostgresBackend`."""
