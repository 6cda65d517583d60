"""Engines that turn a lock into an image, and the sandbox that runs commands in one."""
