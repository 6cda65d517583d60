"""Releases of a Python package: versions, locks, distributions, the procedure from check to publish."""
