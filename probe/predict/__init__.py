"""One answer: calibrated prediction, verdict, evidence, and the sentences that state it.

Others use `predictor.classify`, `prediction.Prediction`, `freshness` and `wording`.

The evidence always holds the nearest products of the runner-up, and marks near-duplicates. Terminal
and page take every sentence from `wording`. `freshness` compares a probe with what came after it.
"""
