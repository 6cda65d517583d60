"""Settings of all tests."""

import os

import hypothesis

# How long an example takes says how busy the machine is, nothing about the code: speed is measured by `make bench`.
# CI tries the same examples each time, so that a change is judged by what it changed; everywhere else they are new ones.
hypothesis.settings.register_profile("lockyard", deadline=None, derandomize="LOCKYARD_REQUIRE" in os.environ)
hypothesis.settings.load_profile("lockyard")
