"""What was done to a shelf, command by command: the history, what differs, and taking it back.

Others use `history.operations`, `diff.differences`, `undo.undo` and `apply.apply_labels`.
"""
