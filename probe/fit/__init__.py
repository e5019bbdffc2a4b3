"""Training: labelled data, splits, the network, the k nearest votes, a probe and its files.

Others use `training.train`, `data.LabelledData`, `model.Probe`, `settings` and `storage`.
"""
