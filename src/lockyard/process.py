"""Other programs, effects: argument lists only, no shell, output captured."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockyard.errors import LockyardError


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    input_bytes: bytes = b"",
    timeout: float | None = 60.0,
) -> Done:
    """Run a program to its end; `env` is its whole environment, `timeout` is in seconds.

    Raises:
        LockyardError: it does not exist, cannot be started, or takes longer.

    """
    try:
        done = subprocess.run(
            list(argv), input=input_bytes, env=dict(env), capture_output=True, timeout=timeout, check=False
        )
    except OSError as error:
        raise LockyardError(f"{argv[0]} cannot be run: {error.strerror}", hint=f"install {argv[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise LockyardError(f"{argv[0]} did not end within {timeout} s") from error
    return Done(done.returncode, done.stdout, done.stderr)
