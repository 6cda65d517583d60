"""Continuous integration: the workflows and build specifications that call Lockyard's commands."""
