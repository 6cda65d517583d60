"""Write the generated parts of docs/reference/: every command's help, exit codes, the configuration's JSON schema.

`--check` writes nothing and exits 8 when a page differs from what the code says.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from lockyard import errors
from lockyard.artifacts.template import CONTEXT
from lockyard.cli.root import INTERRUPTED, SECTIONS, root_command
from lockyard.conda.bounds import SHAPES, solver_spec, upper_bound
from lockyard.conda.spec import Spec
from lockyard.distribution import Distribution, Line, Policy
from lockyard.pyrelease import dockerfiles
from lockyard.pyrelease.project import PackageTable
from lockyard.pyrelease.runtimes import RuntimesFile
from lockyard.strict import Model
from lockyard.version import Bump

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
BEGIN, END = "<!-- The table is written by `make docs`. -->\n\n", "<!-- end of the table -->\n"
NOTE = "<!-- Written by `make docs`; a test keeps it equal to the code. -->\n\n"


def walk(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """Yield the full name and the help text of a command and of all below it, except the root's own."""
    settings = {**command.context_settings, "max_content_width": 100, "terminal_width": 100}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from walk(found, child, context)


def commands() -> str:
    """Return the page of all commands."""
    parts = [
        "# Commands\n\n",
        NOTE,
        "`python src/main.py COMMAND` in a checkout and `lockyard COMMAND` are the same.\n",
    ]
    for path, text in walk(root_command, "lockyard", None):
        parts.append(f"\n## `{path}`\n\n```text\n{text.rstrip()}\n```\n")
    parts.append("\n## Groups\n\n")
    parts += [f"- {section}: {', '.join(f'`{name}`' for name in names)}\n" for section, names in SECTIONS.items()]
    return "".join(parts)


def exit_codes() -> str:
    """Return the page of exit codes."""
    rows: dict[int, list[str]] = {0: ["success"], INTERRUPTED: ["interrupted by Ctrl-C"]}
    classes: list[type[errors.LockyardError]] = [errors.LockyardError, *_subclasses(errors.LockyardError)]
    for cls in classes:
        rows.setdefault(cls.exit_code, []).append(f"`{cls.__name__}`: {(cls.__doc__ or '').splitlines()[0]}")
    lines = [f"| {code} | {'<br>'.join(rows[code])} |\n" for code in sorted(rows)]
    return "".join(["# Exit codes\n\n", NOTE, "| code | meaning |\n|---|---|\n", *lines])


def _subclasses(cls: type[errors.LockyardError]) -> Iterator[type[errors.LockyardError]]:
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from _subclasses(child)


def schema(model: type[Model]) -> str:
    """Return the JSON schema of one configuration file."""
    return json.dumps(model.model_json_schema(by_alias=True), indent=2, sort_keys=True) + "\n"


def shapes() -> str:
    """Return the table of version shapes: what each bump and policy makes of an installed version."""
    columns: tuple[tuple[Bump, Policy], ...] = (
        (Bump.PATCH, "semver"),
        (Bump.MINOR, "semver"),
        (Bump.MINOR, "pythonesque"),
        (Bump.PATCH, "calver"),
    )
    heads = " | ".join(f"{part}, `{policy}`" for part, policy in columns)
    lines = [
        f"| shape | installed | {heads} | the solver is asked, patch | why |\n",
        f"|---|---|{'---|' * len(columns)}---|---|\n",
    ]
    for shape, installed, why in SHAPES:
        bounds = [upper_bound(installed, part, policy) for part, policy in columns]
        asked = solver_spec(Spec(name="a", version=f">={installed},<{bounds[0]}")).version
        cells = " | ".join(f"`<{bound}`" if bound else "none" for bound in bounds)
        lines.append(f"| {shape} | `{installed}` | {cells} | `{asked}` | {why} |\n")
    return "".join(lines)


def context(names: Mapping[str, str]) -> str:
    """Return the table of names that a template knows."""
    return "".join(["| name | meaning |\n|---|---|\n", *(f"| `{name}` | {text} |\n" for name, text in names.items())])


def with_table(page: str, table: str) -> str:
    """Return a page of `docs/reference/` with its generated table as it must be."""
    text = (REFERENCE / page).read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"docs/reference/{page} has no {BEGIN.strip()} … {END.strip()}")
    return f"{before}{begin}{table}\n{end}{after}"


def pages() -> dict[Path, str]:
    """Return every generated file."""
    return {
        REFERENCE / "commands.md": commands(),
        REFERENCE / "exit-codes.md": exit_codes(),
        REFERENCE / "templates.md": with_table("templates.md", context(CONTEXT)),
        REFERENCE / "runtimes.md": with_table("runtimes.md", context(dockerfiles.CONTEXT)),
        REFERENCE / "version-bounds.md": with_table("version-bounds.md", shapes()),
        REFERENCE / "lockyard.schema.json": schema(Distribution),
        REFERENCE / "variants.schema.json": schema(Line),
        REFERENCE / "package.schema.json": schema(PackageTable),
        REFERENCE / "runtimes.schema.json": schema(RuntimesFile),
    }


def main() -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [path for path, text in pages().items() if not path.is_file() or path.read_text() != text]
    if check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} differs from the code: run make docs", file=sys.stderr)
        return errors.DriftError.exit_code if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages()[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
