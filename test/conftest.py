"""Settings of all tests."""

import hypothesis

# How long an example takes says how busy the machine is, nothing about the code: speed is measured by `make bench`.
hypothesis.settings.register_profile("lockyard", deadline=None)
hypothesis.settings.load_profile("lockyard")
