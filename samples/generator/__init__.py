"""Draws the sample catalogue and trains its tiny CLIP; not in the wheel."""
