"""Audit and review: wrong labels, duplicates, outliers, conflicts, new categories.

Others use `audit.audit_shelf`, `files` (reports) and `review_queue`.
"""
