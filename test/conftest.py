"""Settings of all tests."""

import os

import hypothesis

# How long an example takes says how busy the machine is, nothing about the code: speed is measured by `make bench`.
# Many runs with few new examples find as much as few runs with many; CI tries the same ones each time, so that a change
# is judged by what it changed.
_IN_CI = "LOCKYARD_REQUIRE" in os.environ
hypothesis.settings.register_profile("lockyard", deadline=None, derandomize=_IN_CI, max_examples=100 if _IN_CI else 25)
hypothesis.settings.load_profile("lockyard")
