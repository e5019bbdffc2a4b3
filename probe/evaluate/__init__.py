"""How good a probe is on products held out: methods side by side, metrics, figures.

Others use `held_out.evaluate_shelf` and `metrics`.
"""
