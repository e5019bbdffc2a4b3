"""Pictures and texts become unit embeddings: CLIP on several runtimes, and what identifies one.

Others use `encoder.Encoder`, `encoder.load_encoder`, `canary`, `precision` and `image_processor`.

`encoder` has the interface and chooses the runtime. The precision class is part of the fingerprint,
so embeddings of different precision never mix. The canary detects an encoder that changed under the
shelf.
"""
