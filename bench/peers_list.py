"""The peers by the names that `--only` takes."""

from __future__ import annotations

from peers_base import Peer
from peers_libraries import FaissFlat, FaissHnsw, Hnswlib, Usearch
from peers_stores import Chroma, DuckDB, Kinshelf, Lance, LanceFlat, Qdrant, SqliteVec

PEERS: dict[str, type[Peer]] = {
    "kinshelf": Kinshelf,
    "faiss-flat": FaissFlat,
    "faiss-hnsw": FaissHnsw,
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "chroma": Chroma,
    "lancedb-flat": LanceFlat,
    "lancedb": Lance,
    "qdrant": Qdrant,
    "sqlite-vec": SqliteVec,
    "duckdb": DuckDB,
}
