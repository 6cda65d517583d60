"""Every failure that a user can meet, each class with its exit code (the table in `docs/reference/exit-codes.md`)."""

from collections.abc import Iterable
from typing import ClassVar


class LockyardError(Exception):
    """A failure with one short message, optional detail lines and the next step to take.

    Args:
        message: what is wrong and where, in one line, with `file:line` where there is one.
        hint: the next step for the user, in one line.
        details: further lines, printed below the message in their order.

    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)


class ConfigError(LockyardError):
    """Usage or configuration: a value, a file or a release that does not exist or does not parse."""

    exit_code = 2


class VersionExistsError(LockyardError):
    """The target release is there already."""

    exit_code = 3


class UnsatisfiableError(LockyardError):
    """No set of packages meets the specs."""

    exit_code = 4


class StaleLockError(LockyardError):
    """The lock does not belong to the inputs beside it."""

    exit_code = 4


class BuildError(LockyardError):
    """An image could not be built: a package, a layer, a Dockerfile step."""

    exit_code = 5


class HashMismatchError(BuildError):
    """Fetched or cached bytes are not the bytes that the lock names."""


class RegistryError(LockyardError):
    """A registry refused, or a tag is taken by another digest."""

    exit_code = 6


class ImageTestError(LockyardError):
    """Image tests failed, or their record does not belong to the image."""

    exit_code = 7


class ScanError(LockyardError):
    """A scanner found vulnerabilities above the threshold that no list allows."""

    exit_code = 7


class DriftError(LockyardError):
    """`--check` or `--validate` found a difference or a broken budget."""

    exit_code = 8
