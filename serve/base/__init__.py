"""Shared by every part of the server: settings, failures as JSON, forms of requests."""
