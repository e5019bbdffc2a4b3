"""CLIP on several runtimes: transformers (the reference), our torch pass, NumPy for a few queries.

Others use `encoder.ClipEncoder`; `transformers_clip` is what every other one is checked against.
On a CPU, `numpy_clip` answers a few queries over memory-mapped weights without torch, and
`torch_clip` encodes in bulk.
"""
