"""Every command that a page shows exists, with these options; every block says where it runs, or why it does not."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lockyard.cli.root import root_command
from support.pages import Command, Result, commands, inline_commands

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"))
    if page.name not in {"CHANGELOG.md", "commands.md"} and "build_artifacts" not in page.parts
]
PLACES = {"demo", "labservice", "reference", "upstream", "images"}


def lockyards(text: str) -> Iterator[list[str]]:
    """The arguments of each `lockyard` of a shell line."""
    words = shlex.split(text.replace("\\\n", " "), comments=True)
    while words:
        end = next((at for at, word in enumerate(words) if word in {"&&", "||", "|", ";"}), len(words))
        one, words = words[:end], words[end + 1 :]
        while one and "=" in one[0]:
            one = one[1:]
        if one[:2] == ["python", "src/main.py"]:
            one = ["lockyard", *one[2:]]
        if one and Path(one[0]).name == "lockyard":
            redirected = next((at for at, word in enumerate(one) if word in {">", ">>", "2>", "<"}), len(one))
            yield one[1:redirected]


def problem_of(args: list[str], where: str) -> str | None:
    """Parse a command line as click does; no value is looked at, nothing runs."""
    command: click.Command = root_command
    context, rest = click.Context(command, **command.context_settings), args
    try:
        while True:
            _, rest, _ = command.make_parser(context).parse_args(rest)
            if not rest:
                return None
            if not isinstance(command, click.Group):
                return f"{where}: lockyard {shlex.join(args)}: unexpected {rest[0]}"
            _, found, rest = command.resolve_command(context, rest)
            assert found is not None
            command, context = found, click.Context(found, parent=context, **found.context_settings)
    except click.UsageError as error:
        return f"{where}: lockyard {shlex.join(args)}: {error.message}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    shown = [(command.line, command.text) for command in commands(page)]
    problems = [
        problem_of(args, f"{page.name}:{line}")
        for line, text in (*shown, *inline_commands(page))
        if not any(mark in text for mark in ("COMMAND", "…|", "A\\|B", "create-*", "generate-*"))
        for args in lockyards(text.replace("…", "").replace("|", r"\|") if (line, text) not in shown else text)
    ]
    assert not [problem for problem in problems if problem]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_where_it_runs(page: Path) -> None:
    assert not [
        f"{page.name}:{item.line}: {item.text}" for item in commands(page) if not item.place and not item.reason
    ]
    assert not [item.place for item in commands(page) if item.place and item.place not in PLACES]


def test_a_page_is_taken_apart(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`lockyard lock V`\n<!-- run: demo -->\n\n1. x\n   ```console\n   $ a \\\n     b\n   out … put\n   $ c\n   error: no\n   ```\n"
        "<!-- not run: needs the moon -->\n```sh\nd\n```\n```toml\n$ x = 1\n```\n"
    )
    first, second, third = commands(page)
    assert (first.text, first.printed, first.place, first.line) == ("a \\\nb", ("out … put",), "demo", 6)
    assert (second.text, second.fails, second.place) == ("c", True, "demo")
    assert (third.text, third.place, third.reason) == ("d", None, "needs the moon")
    assert list(inline_commands(page)) == [(1, "lockyard lock V")]


@pytest.mark.parametrize(
    ("printed", "code", "output", "problem"),
    [
        (("a … c",), 0, "x\na  b  c", None),
        (("a", "b"), 0, "b\na", "did not print 'b'"),
        ((), 1, "", "exit code 1"),
        (("error: bad",), 2, "error: bad\nnext: …", None),
        (("error: bad",), 0, "error: bad", "exit code 0"),
    ],
)
def test_what_is_printed_is_compared(printed: tuple[str, ...], code: int, output: str, problem: str | None) -> None:
    found = Result(Command(Path("p.md"), 1, "x", printed, "demo", None), code, output).problem()
    assert found is None if problem is None else problem in (found or "")


def test_an_unknown_option_is_found() -> None:
    assert problem_of(["lock", "1.0.0", "--frehs"], "p:1")
    assert problem_of(["lokc"], "p:1")
    assert problem_of(["cache", "prun"], "p:1")
    assert problem_of(["lock", "1.0.0", "--fresh"], "p:1") is None
    assert list(lockyards("A=1 lockyard lock V > x && lockyard diff A B | less")) == [
        ["lock", "V"],
        ["diff", "A", "B"],
    ]
