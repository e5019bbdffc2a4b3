"""Draws the sample catalogue; not in the wheel."""
