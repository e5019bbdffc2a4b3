"""The shelf as a place of work: what an address shows, its facets, and changing many at once.

`finding` reads an address, `sidebar` draws its facets, `listing` and `bulk` are the routes.
"""
