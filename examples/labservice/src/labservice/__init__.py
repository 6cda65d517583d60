"""Keeps the measurements of a laboratory."""

__version__ = "0.1.0"
