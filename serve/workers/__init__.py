"""Processes and batches behind the server: decoding, encoding, predicting; each can be killed.

Others use `encoder`, `decoding.Decoders` and `predicting`.
"""
