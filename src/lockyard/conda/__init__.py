"""Conda specs, bounds, locks, their differences, solving and fetching."""
