"""Whether a product resembles anything known: distances as a p-value against known products.

Others use `model.Novelty`, `fit.fit_novelty` and `reference`.
"""
