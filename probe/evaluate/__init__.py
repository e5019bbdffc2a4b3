"""Evaluation on held-out products: methods side by side, metrics, figures.

Others use `held_out.evaluate_shelf` and `metrics`.
"""
