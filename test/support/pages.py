"""The commands of Markdown pages: taken out, checked, run.

In a page, `<!-- run: PLACE -->` says where the blocks below it run, `<!-- not run: REASON -->` why they cannot. Of a `console`
block every line that begins with `$ ` is a command (a line that ends with a backslash goes on), the other lines are what it
prints; `…` stands for anything. A command of which a printed line begins with `error:` has to fail.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_DIRECTIVE_RE = re.compile(r"<!-- (?P<kind>run|not run): (?P<value>.+?) -->")
_FENCE_RE = re.compile(r"\s*```(?P<language>\w*)\s*$")
_INLINE_RE = re.compile(r"`(lockyard [a-z][^`]*)`")
_MARK = "\x1e"


@dataclass(frozen=True)
class Command:
    """One command of a page; `place` is where it runs, `None` where it does not, because of `reason`."""

    page: Path
    line: int
    text: str
    printed: tuple[str, ...]
    place: str | None
    reason: str | None

    @property
    def fails(self) -> bool:
        """Whether the page says that it fails."""
        return any(line.startswith("error:") for line in self.printed)


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page's `console` and `sh` blocks."""
    place: str | None = None
    reason: str | None = None
    language: str | None = None
    found: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        fence = _FENCE_RE.fullmatch(line)
        if fence and language is None:
            language = fence["language"]
        elif fence:
            yield from (Command(page, at, text, tuple(printed), place, reason) for at, text, printed in found)
            language, found = None, []
        elif language is None and (match := _DIRECTIVE_RE.fullmatch(line.strip())):
            place = match["value"] if match["kind"] == "run" else None
            reason = match["value"] if match["kind"] == "not run" else None
        elif language == "console":
            _take(line.strip(), number, found)
        elif language == "sh" and line.strip():
            found.append((number, line, []))


def _take(line: str, number: int, found: list[tuple[int, str, list[str]]]) -> None:
    if line.startswith("$ "):
        found.append((number, line[2:], []))
    elif found and found[-1][1].endswith("\\"):
        found[-1] = (found[-1][0], f"{found[-1][1]}\n{line}", [])
    elif found:
        found[-1][2].append(line)


def inline_commands(page: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every `lockyard …` between backticks, outside of blocks."""
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if _FENCE_RE.fullmatch(line):
            inside = not inside
        elif not inside:
            yield from ((number, match[1]) for match in _INLINE_RE.finditer(line))


@dataclass(frozen=True)
class Result:
    """What a command of a page did; `output` is stdout and stderr as they came."""

    command: Command
    code: int
    output: str

    def problem(self) -> str | None:
        """Return how it differs from what the page says, `None` when it does not."""
        where = f"{self.command.page.name}:{self.command.line}: {self.command.text}"
        if bool(self.code) != self.command.fails:
            return f"{where}\nended with exit code {self.code}\n{self.output}"
        rest = " ".join(self.output.split())
        for line in self.command.printed:
            words = re.escape(" ".join(line.split()))
            match = re.search(words.replace(r"\ …\ ", " (?:.*? )??").replace("…", ".*?"), rest)
            if match is None:
                return f"{where}\ndid not print {line!r} (or not in this order), but\n{self.output}"
            rest = rest[match.end() :]
        return None


def run_page(items: list[Command], cwd: Path, env: Mapping[str, str]) -> list[Result]:
    """Run the commands of a page in one shell, as a reader does, and return what each did."""
    script = "".join(f"{item.text}\nprintf '{_MARK}%s{_MARK}' $?\n" for item in items)
    done = subprocess.run(
        ["bash", "-s"], input=script, cwd=cwd, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False, timeout=600,
    )  # fmt: skip
    parts = done.stdout.split(_MARK)
    codes, outputs = parts[1::2], parts[0::2]
    assert len(codes) == len(items), f"the shell ended early:\n{done.stdout}"
    return [Result(item, int(code), output) for item, code, output in zip(items, codes, outputs, strict=False)]


def places(page: Path) -> set[str]:
    """Return where the commands of a page run."""
    return {command.place for command in commands(page) if command.place}


def check_page(page: Path, place: str, work: Path, env: Mapping[str, str]) -> None:
    """Run the commands of a page that belong to `place` in the directory `work`, and compare."""
    results = run_page([command for command in commands(page) if command.place == place], work, env)
    problems = [problem for result in results if (problem := result.problem())]
    assert not problems, "\n\n".join(problems)


def environment(**more: str | Path) -> dict[str, str]:
    """A reader's: no setting of Lockyard, its commands on the path, no colours, wide lines."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LOCKYARD_", "GIT_"))}
    env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}", "COLUMNS": "200", "NO_COLOR": "1"}
    identity = {
        f"GIT_{who}_{what}": f"reader{at}example.com"
        for who in ("AUTHOR", "COMMITTER")
        for what, at in (("NAME", " "), ("EMAIL", "@"))
    }
    return env | identity | {name: str(value) for name, value in more.items()}
