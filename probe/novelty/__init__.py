"""Novelty: the distance of a product to known products, as a p-value.

Others use `model.Novelty`, `fit.fit_novelty` and `reference`.
"""
