"""`adopt`."""

import collections
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockyard.cli.options import Context, dry_run_option, json_option, pass_context
from lockyard.reports.text import count

if TYPE_CHECKING:
    from lockyard.adoption.dockerfiles import DockerfileFacts
    from lockyard.adoption.lines import LineFacts
    from lockyard.adoption.suites import SuiteFacts, TestFacts
    from lockyard.app.adopt import Adoption

SCHEMA = 1
_SHOWN = 5


@click.command()
@click.option("--name", metavar="N", help="The distribution's name [default: that of its directory].")
@dry_run_option
@json_option
@pass_context
def adopt(context: Context, *, name: str | None, dry_run: bool, as_json: bool) -> None:
    r"""Adopt an existing tree of releases: read it, and write the configuration that says the same.

    Reads build_artifacts/vX/vX.Y/vX.Y.Z (specs, env.out, Dockerfiles), template/ and test/ below the current directory or
    --root, changes none of them, and writes lockyard.toml, template/vX/variants.toml for each major line, and tests.toml
    beside Dockerfile tests whose needs are known. Files that are there already are never replaced. The report says which
    releases are recognised, how many env.in the rules of create give again line for line, what each Dockerfile is and which
    of its lines the native engine cannot do, and what each image test needs; -v and --json say all of it.

    \b
    Examples:
      lockyard adopt --dry-run
      lockyard adopt --name data-science
      lockyard --root ../images adopt --dry-run --json
    """
    from lockyard.app.adopt import adopt_tree

    root = (context.root or Path.cwd()).resolve()
    result = adopt_tree(context.toolbox, root, name=name, dry_run=dry_run)
    if as_json:
        context.emit(json.dumps(_value(result), indent=1, ensure_ascii=False))
        return
    context.emit("\n".join(_report(result, whole=context.log.verbosity > 0)))
    if result.written:
        last = result.lines[-1].release
        say = context.toolbox.log
        say.info("keep .lockyard/ and out/ out of git; commit what was written")
        say.info(f"next: lockyard create-patch-version-artifacts --base-patch-version {last} --lock")


def _report(result: "Adoption", *, whole: bool) -> Iterator[str]:
    """Yield the report's lines; `whole` says all of what is else counted."""
    first, last = result.releases[0], result.releases[-1]
    yield f"releases recognised: {len(result.releases)}/{result.found} ({first} to {last})"
    for item in result.unrecognised:
        yield f"  {item.path}: {item.why}"
    yield from _rules(result, whole=whole)
    for line in result.lines:
        yield from _line(line)
    yield from _dockerfiles(result, whole=whole)
    if not result.suites:
        yield "image tests: none in test/image or test/test_artifacts/vX"
    for suite in result.suites:
        yield from _suite(suite)
    verb = "wrote" if result.written else "would write"
    yield from (f"{verb} {path}" for path in result.files)
    yield from (f"there already: {path}" for path in result.present)


def _rules(result: "Adoption", *, whole: bool) -> Iterator[str]:
    same = sum(item.same for item in result.reproduced)
    others = [item for item in result.reproduced if not item.same]
    yield f"env.in reproduced: {same} of {len(result.reproduced)} by the rules of create"
    shown = others if whole else others[:_SHOWN]
    for item in shown:
        what = item.problem or f"{item.differing} {'line differs' if item.differing == 1 else 'lines differ'}"
        yield f"  {item.version} {item.image_type}, from {item.base}: {what}"
    if len(others) > len(shown):
        yield f"  and {len(others) - len(shown)} more; -v names them"
    if result.unknown_base:
        yield f"  not planned again: {'; '.join(result.unknown_base)}"


def _line(line: "LineFacts") -> Iterator[str]:
    types = ", ".join(item.name for item in line.types)
    yield (
        f"line {line.major}: {count(line.releases, 'release')}; of {line.release}: image types {types};"
        f" channels {', '.join(line.channels)}"
    )
    for item in line.types:
        base = f"begins from {item.base.text} ({item.base.where})" if item.base else "its base is unknown"
        yield f"  {item.name}: {', '.join(item.platforms)}; {base}"
        files = [
            f"{item.name}.{end}"
            for end in ("env.in", "pinned_env.in", "arg_based_env.in")
            if f"{item.name}.{end}" in line.files
        ]
        if files:
            yield f"    {', '.join(files)}"
        for name, value in sorted(item.args.items()):
            yield f"    {name} = {value.text} ({value.where})"
    yield from (f"  note: {note}" for note in line.notes)


def _dockerfiles(result: "Adoption", *, whole: bool) -> Iterator[str]:
    kinds = collections.Counter(item.kind for item in result.dockerfiles)
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())) or "none"
    yield f"Dockerfiles: {counts}"
    for kind in sorted(kinds):
        yield f"  {kind}: {', '.join(_place(item.path) for item in result.dockerfiles if item.kind == kind)}"
    telling = {line.dockerfile.path for line in result.lines if line.dockerfile is not None}
    for item in result.dockerfiles:
        if whole or item.path in telling:
            yield from _dockerfile(item)
    if not whole and len(result.dockerfiles) > len(telling):
        yield "  -v says the same of the others"


def _place(path: str) -> str:
    """Return a short name of a Dockerfile: its template's directory or its release, and its name where it has another."""
    directory, _, name = path.rpartition("/")
    short = directory if directory.startswith("template") else directory.rpartition("/")[2].removeprefix("v")
    return short if name == "Dockerfile" else f"{short} {name}"


def _dockerfile(item: "DockerfileFacts") -> Iterator[str]:
    yield f"  {item.path}: {item.kind}"
    if item.arguments:
        names = (
            argument.name if argument.default is None else f"{argument.name}={argument.default}"
            for argument in item.arguments
        )
        yield f"    build arguments: {', '.join(names)}"
    for base in item.bases:
        yield f"    {base.where}: FROM {base.text}"
    if not item.blockers:
        yield "    the native engine builds it"
    for blocker in item.blockers:
        yield f"    blocker {blocker.where}: {blocker.what}; {blocker.way}"


def _suite(suite: "SuiteFacts") -> Iterator[str]:
    found = [count(len(suite.tests), "script or Dockerfile", "scripts and Dockerfiles")] if suite.tests else []
    found += [count(len(suite.pytest), "file of pytest", "files of pytest")] if suite.pytest else []
    yield f"image tests in {suite.place}: {', '.join(found) or 'none'}"
    for item in (*suite.tests, *suite.pytest):
        types = f"; for {', '.join(item.types)}" if item.types else ""
        named = "" if item.runs else "; not run: its name does not end in .test.Dockerfile"
        yield f"  {item.path}: {_needs(item)}{types}{named}"


def _needs(item: "TestFacts") -> str:
    if item.packages:
        return f"needs {', '.join(item.packages)}"
    if item.imports:
        return f"imports {', '.join(item.imports)}"
    return "nothing says what it needs"


def _value(result: "Adoption") -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": result.name,
        "written": result.written,
        "files": {path: file.data.decode() for path, file in result.files.items()},
        "present": list(result.present),
        "releases": {
            "recognised": [str(version) for version in result.releases],
            "found": result.found,
            "others": [{"path": item.path, "why": item.why, "waiting": item.waiting} for item in result.unrecognised],
        },
        "env_in": {
            "reproduced": sum(item.same for item in result.reproduced),
            "of": len(result.reproduced),
            "others": [
                {
                    "version": str(item.version),
                    "base": str(item.base),
                    "image_type": item.image_type,
                    "differing_lines": item.differing,
                    "problem": item.problem or None,
                }
                for item in result.reproduced
                if not item.same
            ],
            "not_planned": list(result.unknown_base),
        },
        "lines": {str(line.major): _line_value(line) for line in result.lines},
        "dockerfiles": [_dockerfile_value(item) for item in result.dockerfiles],
        "tests": [_suite_value(item) for item in result.suites],
    }


def _line_value(line: "LineFacts") -> dict[str, Any]:
    return {
        "release": str(line.release),
        "releases": line.releases,
        "channels": list(line.channels),
        "dockerfile": line.dockerfile.path if line.dockerfile is not None else None,
        "files": list(line.files),
        "types": {
            item.name: {
                "platforms": list(item.platforms),
                "base": item.base.text if item.base is not None else None,
                "args": {name: {"value": value.text, "where": value.where} for name, value in item.args.items()},
                "args_without_value": list(item.open),
            }
            for item in line.types
        },
        "notes": list(line.notes),
    }


def _dockerfile_value(item: "DockerfileFacts") -> dict[str, Any]:
    return {
        "path": item.path,
        "kind": item.kind,
        "arguments": {argument.name: argument.default for argument in item.arguments},
        "bases": [{"from": base.text, "where": base.where} for base in item.bases],
        "blockers": [{"where": blocker.where, "what": blocker.what, "way": blocker.way} for blocker in item.blockers],
    }


def _suite_value(suite: "SuiteFacts") -> dict[str, Any]:
    return {
        "place": suite.place,
        "tests": [
            {
                "path": item.path,
                "pytest": item in suite.pytest,
                "packages": list(item.packages),
                "types": list(item.types),
                "imports": list(item.imports),
                "image_argument": item.image_argument,
                "runs": item.runs,
            }
            for item in (*suite.tests, *suite.pytest)
        ],
    }


COMMANDS = (adopt,)
