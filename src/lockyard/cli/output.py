"""How the story looks: stderr for people or as JSON lines; stdout only ever carries the answer."""

import contextlib
import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from lockyard.cli.meter import Meter
from lockyard.errors import LockyardError

if TYPE_CHECKING:
    from rich.console import Console

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

    @functools.cached_property
    def console(self) -> "Console":
        """The console on stderr; rich is loaded for styles, tables and bars only."""
        from rich.console import Console

        return Console(
            stderr=True,
            force_terminal=True if self.color == "always" else None,
            no_color=True if self.color == "never" else None,
            highlight=False,
            # A pipe has no width: leave room for tables.
            width=None if sys.stderr.isatty() else 160,
            soft_wrap=not sys.stderr.isatty(),
        )

    @property
    def is_plain(self) -> bool:
        """Whether stderr is neither a terminal nor to be coloured all the same."""
        return self.color != "always" and not sys.stderr.isatty()

    def step(self, message: str) -> None:
        """Say that a stage begins."""
        self._say("step", message, 0, ("bold cyan", "==> "), "bold")

    def info(self, message: str) -> None:
        """Say a fact of interest."""
        self._say("info", message, 0, ("", "    "))

    def detail(self, message: str) -> None:
        """Say what only `-v` shows."""
        self._say("detail", message, 1, ("", "    "), "dim")

    def warning(self, message: str) -> None:
        """Say what the user should look at."""
        self._say("warning", message, -1, ("yellow", "warning: "))

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
        self._print(("bold red", "error: "), ("", redact(error.message)))
        for line in error.details:
            self._print(("", f"  {redact(line)}"))
        if error.hint:
            self._print(("bold", "next: "), ("", redact(error.hint)))

    def interrupted(self) -> None:
        """Say that the user ended the command."""
        self._print(("", "interrupted"))

    def table(self, rows: Iterable[tuple[str, str]]) -> None:
        """Print (style, line) rows as they are, never folded, so that a log can be searched; nothing when quiet."""
        if self.verbosity < 0 or self.log_format == "json":
            return
        lines = [("", "    "), *(part for style, line in rows for part in ((style, line), ("", "\n    ")))][:-1]
        if lines:
            self._print(*lines, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """Show a bar with rate and remaining time on a terminal; elsewhere a line now and then, and one at the end."""
        if self.log_format == "text" and self.verbosity >= 0 and self.console.is_terminal:
            with self._bar(description, total, unit) as advance:
                yield advance
            return
        meter = Meter(description, total, unit, self.info)
        yield meter.add
        self.info(meter.summary())

    @contextlib.contextmanager
    def _bar(self, description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        from rich import progress as bars
        from rich.markup import escape

        figures: tuple[bars.ProgressColumn, ...] = (
            (bars.DownloadColumn(), bars.TransferSpeedColumn()) if unit == "B" else (bars.MofNCompleteColumn(),)
        )
        columns = (bars.TextColumn("    {task.description}"), bars.BarColumn(), *figures, bars.TimeRemainingColumn())
        with bars.Progress(*columns, console=self.console, transient=False) as progress:
            task = progress.add_task(escape(description), total=total)
            yield lambda amount: progress.advance(task, amount)

    def _say(self, kind: str, message: str, level: int, head: tuple[str, str], style: str = "") -> None:
        if level > self.verbosity:
            return
        if self.log_format == "json":
            self._json(kind=kind, message=message)
            return
        self._print(head, (style, redact(message)))

    def _print(self, *parts: tuple[str, str], soft_wrap: bool | None = None) -> None:
        """Print pieces of (style, text) as one line."""
        if self.is_plain:
            sys.stderr.write("".join(text for _, text in parts) + "\n")
            sys.stderr.flush()
            return
        from rich.text import Text

        self.console.print(Text.assemble(*((text, style) for style, text in parts)), soft_wrap=soft_wrap)

    def _json(self, **fields: Any) -> None:
        sys.stderr.write(redact(json.dumps(fields, sort_keys=True)) + "\n")
        sys.stderr.flush()
