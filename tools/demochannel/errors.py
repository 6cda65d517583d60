"""The one error that users of this package see."""


class DemoError(Exception):
    """Something that the person at the keyboard can put right; its text is one line."""
