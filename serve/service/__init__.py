"""What the routes call: one object over the shelf, its jobs, training, uploaded products.

Others use `service.Service` and `jobs`.
"""
