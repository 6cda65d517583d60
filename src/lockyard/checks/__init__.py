"""Image tests: which run, and their records."""
