"""Feeds that come again and again: several sources as one operation, and what they no longer have.

Others use `feed` (`add_feed`, its options and its report) and `prune`.
"""
