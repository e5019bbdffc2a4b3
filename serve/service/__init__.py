"""The service behind the routes: the shelf, its jobs, training, uploaded products.

Others use `service.Service` and `jobs`.
"""
