"""OCI images as immutable values, layers made from packages, and layouts on disk."""
