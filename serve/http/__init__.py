"""What a request meets before a route: security, limits; and how answers and metrics look.

Others use `security`, `limits`, `requests`, `answers` and `metrics`.
"""
