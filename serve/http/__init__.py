"""What a request meets before a route: security, limits; and how answers look.

Others use `security`, `limits`, `requests` and `answers`.
"""
