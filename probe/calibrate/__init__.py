"""From scores to probabilities: cross-fitting, the hybrid, prediction sets, the policy.

Others use `calibrate.calibrate`, `hybrid`, `conformal`, `policy`, `mixture` and `new_categories`.

Each training row, of copies one, is judged by a probe and by neighbours of other folds, on large
shelves by the rows held out (`crossfit`), and by a ridge that leaves its group out in closed form.
`mixture` fits how the three are pooled, by likelihood, and again for queries of one modality. The
same judgements, each with a calibration chosen on other rows, give the prediction sets, the
accuracy quoted when probe and neighbours agree, and the policy. All of it lies in
`reference.safetensors` beside the weights. A policy is saved as the probe's next version, with the
same weights.

A new category is known by the whitened mean of its products. It wins where it is nearer than every
known category, by a margin that 0.5 % of held-out known products reach.
"""
