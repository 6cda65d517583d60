"""How the story looks: stderr for people or as JSON lines; stdout only ever carries the answer."""

import contextlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from lockyard.errors import LockyardError
from lockyard.reports.text import human_size as human_size  # noqa: PLC0414 - commands find it here

LogFormat = Literal["text", "json"]
Color = Literal["auto", "always", "never"]

# user:password@ in a URL, an Authorization header, an AWS key: never in a message.
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+@"), "***@"),
    (re.compile(r"(?i)\b(authorization:\s*|bearer\s+|basic\s+)[A-Za-z0-9+/=._~-]{8,}"), r"\1***"),
    (re.compile(r"(?i)\b((?:token|password|secret|signature)=)[^&\s]+"), r"\1***"),
)


def redact(text: str) -> str:
    """Return `text` without credentials.

    >>> redact("GET https://me:pw@host/x?token=abc")
    'GET https://***@host/x?token=***'
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class ConsoleLog:
    """The `Log` port on stderr: `verbosity` -1 is quiet, 0 normal, 1 and above show details."""

    def __init__(self, *, verbosity: int = 0, log_format: LogFormat = "text", color: Color = "auto") -> None:
        self.verbosity = verbosity
        self.log_format = log_format
        self.color = color
        self.console = Console(
            stderr=True,
            force_terminal=True if color == "always" else None,
            no_color=True if color == "never" else None,
            highlight=False,
            # A pipe has no width: leave room for tables.
            width=None if sys.stderr.isatty() else 160,
            soft_wrap=not sys.stderr.isatty(),
        )

    def step(self, message: str) -> None:
        """Say that a stage begins."""
        self._say("step", message, 0, "[bold cyan]==>[/] [bold]{}[/]")

    def info(self, message: str) -> None:
        """Say a fact of interest."""
        self._say("info", message, 0, "    {}")

    def detail(self, message: str) -> None:
        """Say what only `-v` shows."""
        self._say("detail", message, 1, "    [dim]{}[/]")

    def warning(self, message: str) -> None:
        """Say what the user should look at."""
        self._say("warning", message, -1, "[yellow]warning:[/] {}")

    def error(self, error: LockyardError) -> None:
        """Print a failure: message, details, the next step."""
        if self.log_format == "json":
            self._json(
                kind="error",
                message=error.message,
                details=list(error.details),
                hint=error.hint,
                exit_code=error.exit_code,
            )
            return
        self.console.print(f"[bold red]error:[/] {escape(redact(error.message))}")
        for line in error.details:
            self.console.print(f"  {escape(redact(line))}")
        if error.hint:
            self.console.print(f"[bold]next:[/] {escape(redact(error.hint))}")

    @contextlib.contextmanager
    def progress(self, description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """Show a bar with rate and remaining time on a terminal, one closing line elsewhere."""
        if self.log_format == "text" and self.verbosity >= 0 and self.console.is_terminal:
            with self._bar(description, total, unit) as advance:
                yield advance
            return
        count = 0
        guard = threading.Lock()

        def add(amount: int) -> None:
            nonlocal count
            with guard:
                count += amount

        yield add
        self.info(f"{description}: {human_size(count) if unit == 'B' else f'{count} {unit}'}")

    @contextlib.contextmanager
    def _bar(self, description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        from rich import progress as bars

        figures: tuple[bars.ProgressColumn, ...] = (
            (bars.DownloadColumn(), bars.TransferSpeedColumn()) if unit == "B" else (bars.MofNCompleteColumn(),)
        )
        columns = (bars.TextColumn("    {task.description}"), bars.BarColumn(), *figures, bars.TimeRemainingColumn())
        with bars.Progress(*columns, console=self.console, transient=False) as progress:
            task = progress.add_task(escape(description), total=total)
            yield lambda amount: progress.advance(task, amount)

    def _say(self, kind: str, message: str, level: int, style: str) -> None:
        if level > self.verbosity:
            return
        if self.log_format == "json":
            self._json(kind=kind, message=message)
            return
        self.console.print(style.format(escape(redact(message))))

    def _json(self, **fields: Any) -> None:
        sys.stderr.write(redact(json.dumps(fields, sort_keys=True)) + "\n")
        sys.stderr.flush()
