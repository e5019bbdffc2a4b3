"""Trains the tiny CLIP of the sample, on drawn pairs of picture and title; not in the wheel."""
