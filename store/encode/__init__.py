"""Pictures and texts become unit embeddings: CLIP on several runtimes, and what identifies one.

Others use `encoder.Encoder`, `encoder.load_encoder`, `canary`, `precision` and `image_processor`.
"""
