"""A real, small conda channel and a small base root file system, made from Debian packages and Python wheels.

The demo and the integration tests install from them. Run ``python -m demochannel --help``.
"""
