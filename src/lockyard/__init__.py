"""Lockyard: lock, build, test and publish versioned families of container images."""

__version__ = "0.1.0.dev0"
