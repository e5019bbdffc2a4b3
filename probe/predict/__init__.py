"""One answer: calibrated prediction, verdict, evidence, and the sentences that state it.

Others use `predictor.classify`, `prediction.Prediction`, `freshness` and `wording`.
"""
