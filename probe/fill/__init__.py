"""Filling a shelf: products on it are classified in bulk, and the sure answers written.

Others use `answers.classify_stored` and `files`. `voters` finds the labelled neighbours of many
products at once, `stored` makes answers of them. `suggest` names products to label next.
"""
