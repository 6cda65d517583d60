"""Reports: what is in a release, what changed, and why. Values in, text or trees out; nothing here prints."""
