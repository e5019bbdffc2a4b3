"""What needs a person: wrong labels, duplicates, outliers, conflicts, new categories; the review.

Others use `audit.audit_shelf`, `files` (reports) and `review_queue`.
"""
