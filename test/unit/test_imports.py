"""The direction of imports and the named homes of effects, asserted over the syntax trees."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"
PACKAGE = SRC / "lockyard"

BASE = {"lockyard", "errors", "version", "tree", "oci.values"}
INFRASTRUCTURE = {
    "cachedir",
    "conda.archive",
    "fs",
    "http",
    "process",
    "unpack",
    "extracted",
    "engines.bytecode",
    "engines.changes",
    "engines.compiling",
    "engines.exporting",
    "engines.docker_build",
    "engines.inside",
    "engines.materialise",
    "engines.scripts",
    "registry.transport",
    "registry.blobfile",
    "registry.download",
    "registry.sending",
    "registry.upload",
    "oci.rootfs",
    "oci.pulled",
    "conda.indexes",
    "pyrelease.files",
}
EDGE = {
    "conda.solve",
    "conda.fetch",
    "conda.packagedir",
    "oci.layout",
    "oci.cache",
    "oci.bases",
    "engines.buildkit",
    "engines.containers",
    "engines.native",
    "engines.daemon",
    "engines.prepare",
    "engines.sandbox",
    "registry.ahead",
    "registry.client",
    "registry.ecr",
    "registry.directory",
    "registry.credentials",
    "registry.journal",
    "registry.push",
    "checks.run",
    "gitobjects",
    "gitwork",
    "pyrelease.uvtool",
    "pyrelease.poetry",
    "pyrelease.backend",
    "pyrelease.index",
}
HOMES = {
    "subprocess": {"process", "engines.compiling"},
    "httpx": {"http", "registry.transport"},
    "docker": {"engines.daemon", "engines.docker_build"},
    "boto3": {"registry.ecr"},
    "os.environ": {"cli.root"},
    "click": {"cli.*"},
}
RANKS = {"cli": 5, "app": 4, "edge": 3, "infrastructure": 2, "pure": 1, "base": 0}


class Use(NamedTuple):
    """What a line of a file uses: `name`, of the module or the variable `of`."""

    kind: Literal["import", "attribute", "call", "keyword"]
    line: int
    name: str
    of: str = ""


@functools.cache
def uses(path: Path) -> tuple[Use, ...]:
    """What the tests here ask of a file: its syntax tree would be a burden to keep."""
    return tuple(_uses(path))


def _uses(path: Path) -> Iterator[Use]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                yield from (Use("import", node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                yield from (Use("import", node.lineno, alias.name, module) for alias in node.names)
            case ast.Attribute():
                of = node.value.id if isinstance(node.value, ast.Name) else ""
                yield Use("attribute", node.lineno, node.attr, of)
            case ast.Call(func=ast.Name(id=name)):
                yield Use("call", node.lineno, name)
            case ast.keyword(arg=str(name)):
                yield Use("keyword", node.value.lineno, name)
            case _:
                pass


@functools.cache
def modules() -> tuple[tuple[str, Path], ...]:
    return tuple(_modules())


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name.endswith(".test.py"):
            continue  # no module: a script that runs inside images
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        yield ".".join(parts) or "lockyard", path


def rank(name: str) -> str:
    if name.split(".", maxsplit=1)[0] in {"cli", "__main__"}:
        return "cli"
    if name.split(".", maxsplit=1)[0] == "app":
        return "app"
    for kind, names in (("base", BASE), ("edge", EDGE), ("infrastructure", INFRASTRUCTURE)):
        if name in names:
            return kind
    return "pure"


def imported(path: Path, known: set[str]) -> Iterator[tuple[int, str]]:
    """Every module of the package, and every foreign top module, that a file imports."""
    for use in uses(path):
        if use.kind == "import":
            whole = f"{use.of}.{use.name}" if use.of else use.name
            yield use.line, whole if not use.of or whole.removeprefix("lockyard.") in known else use.of


def test_imports_point_inwards() -> None:
    """cli → app → EDGE → infrastructure → pure → base; EDGE modules never import each other."""
    known = {name for name, _ in modules()}
    broken = []
    for name, path in modules():
        mine = rank(name)
        for line, target in imported(path, known):
            if not target.startswith("lockyard."):
                continue
            other = target.removeprefix("lockyard.")
            theirs = rank(other)
            same_edge = mine == theirs == "edge"
            if name == "cli.root" or (RANKS[theirs] <= RANKS[mine] and not same_edge):
                continue
            broken.append(f"{path.relative_to(SRC)}:{line}: {name} ({mine}) imports {other} ({theirs})")
    assert not broken, "\n".join(broken)


def test_only_the_root_command_reaches_past_app() -> None:
    """Commands use `app`; the root command alone builds the toolbox from EDGE modules."""
    known = {name for name, _ in modules()}
    broken = []
    for name, path in modules():
        if not name.startswith("cli.") or name == "cli.root":
            continue
        for line, target in imported(path, known):
            if rank(target.removeprefix("lockyard.")) == "edge" and target.startswith("lockyard."):
                broken.append(f"{path.relative_to(SRC)}:{line}: {name} imports {target}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("library", sorted(HOMES))
def test_each_effect_has_a_named_home(library: str) -> None:
    """docker, boto3, httpx, subprocess, os.environ and click are used in their homes only."""
    homes = HOMES[library]
    broken = []
    for name, path in modules():
        if name in homes or (f"{name.split('.')[0]}.*" in homes):
            continue
        lines = [line for line, target in imported(path, set()) if target.split(".")[0] == library]
        if library == "os.environ":
            lines = [
                use.line
                for use in uses(path)
                if use.kind == "attribute" and use.name in {"environ", "getenv"} and use.of == "os"
            ]
        broken += [f"{path.relative_to(SRC)}:{line}: {name} uses {library}" for line in lines]
    assert not broken, "\n".join(broken)


def test_pure_modules_do_no_input_or_output() -> None:
    """Whoever imports these acts: such a module belongs to EDGE or to the infrastructure."""
    effects = {"fcntl", "os", "select", "shutil", "signal", "socket", "subprocess", "tempfile", "urllib.request"}
    broken = []
    for name, path in modules():
        if rank(name) in {"pure", "base"}:
            found = [(line, target) for line, target in imported(path, set()) if target in effects]
            found += [(use.line, "open()") for use in uses(path) if use.kind == "call" and use.name == "open"]
            broken += [f"{path.relative_to(SRC)}:{line}: {name} uses {target}" for line, target in found]
    assert not broken, "\n".join(broken)


def test_no_shell_strings() -> None:
    """Processes get argument lists; `shell=True` and `os.system` do not occur."""
    broken = []
    for _, path in modules():
        for use in uses(path):
            if use.kind == "keyword" and use.name == "shell":
                broken.append(f"{path.relative_to(SRC)}:{use.line}: shell=")
            if use.kind == "attribute" and use.name in {"system", "popen"}:
                broken.append(f"{path.relative_to(SRC)}:{use.line}: {use.name}")
    assert not broken, "\n".join(broken)


def loaded_by(*args: str) -> set[str]:
    """The modules that a command line loads in a fresh interpreter."""
    code = (
        "import sys, io, contextlib\n"
        "from lockyard.cli.root import run\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "    code = run(sys.argv[1:], environ={})\n"
        "assert code == 0, code\n"
        "print(*sorted(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(SRC)}
    )
    return set(done.stdout.split())


def test_help_is_light() -> None:
    """`--help` loads no rattler and none of the heavy libraries: a completion must answer at once."""
    heavy = {"rattler", "docker", "boto3", "httpx", "conda_lock", "pydantic_core", "jinja2", "rich"}
    assert not loaded_by("--help") & heavy
