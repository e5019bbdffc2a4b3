"""From scores to probabilities: cross-fitting, the hybrid, prediction sets, the policy.

Others use `calibrate.calibrate`, `hybrid`, `conformal`, `policy`, `mixture` and `new_categories`.
"""
