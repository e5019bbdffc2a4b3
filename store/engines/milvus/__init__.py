"""A shelf in Milvus or Milvus Lite. Others use `backend.MilvusBackend`."""
