"""The image tests of an existing tree and the packages that each needs, as files or an earlier harness tell. Pure.

An earlier harness is a file of pytest that lists Dockerfile tests with their packages, as literals:
`@pytest.mark.parametrize("dockerfile_path, required_packages", [("numpy.test.Dockerfile", ["numpy"]), …])`, perhaps below a mark
that is named after an image type. It is read, never run.
"""

import ast
import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lockyard.checks.suite import CONFIG, ImageTest, is_pytest_file, read_suite
from lockyard.tree import Tree

_DOCKERFILE_RE = re.compile(r"\.Dockerfile$")
_FROM_RE = re.compile(r"^\s*FROM\s+\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Required:
    """What an earlier harness says of a Dockerfile test: its packages, the image types that it runs for (none: all)."""

    file: str
    packages: tuple[str, ...]
    types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TestFacts:
    """One image test: `path` is relative to the suite, `runs` whether Lockyard takes it for a test as it is named.

    `imports` are the modules that a Python test imports, apart from Python's own.
    """

    __test__ = False  # no test of pytest

    path: str
    packages: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    image_argument: str | None = None
    runs: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteFacts:
    """The tests below one directory: scripts and Dockerfiles, files of pytest, and whether it has a `tests.toml`."""

    place: str
    tests: tuple[TestFacts, ...] = ()
    pytest: tuple[TestFacts, ...] = ()
    config: bool = False


def read_harness(text: str, types: Collection[str]) -> tuple[Required, ...]:
    """Read the tests that a file of pytest lists; what is no literal, or no Python, tells nothing."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    packages: dict[str, tuple[str, ...]] = {}
    marks: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        own = {item.attr for item in node.decorator_list if isinstance(item, ast.Attribute) and item.attr in types}
        for file, names in _listed(node):
            packages.setdefault(file, names)
            marks.setdefault(file, set()).update(own or types)
    return tuple(
        Required(file, names, () if marks[file] >= set(types) else tuple(sorted(marks[file])))
        for file, names in packages.items()
    )


def read_tests(place: str, tree: Tree, required: Sequence[Required]) -> SuiteFacts:
    """Read a suite's files (`place` is its directory); `required` fills in what its `tests.toml` does not say.

    Raises:
        ConfigError: its `tests.toml` is wrong.

    """
    known = {item.file: item for item in required}
    suite = read_suite(tree, source=place)
    tests = [_facts(item, tree, known) for item in suite.tests]
    taken = {item.path for item in tests}
    others = [path for path in tree if _DOCKERFILE_RE.search(path) and path not in taken]
    tests += [
        TestFacts(path=path, packages=known[path].packages if path in known else (), runs=False) for path in others
    ]
    return SuiteFacts(
        place=place,
        tests=tuple(sorted(tests, key=lambda item: item.path)),
        pytest=tuple(TestFacts(path=path, imports=_imports(tree, path)) for path in tree if is_pytest_file(path)),
        config=CONFIG in tree,
    )


def format_tests(facts: SuiteFacts) -> str | None:
    """Return the `tests.toml` that says what the harness said; `None` when it would say nothing, or there is one."""
    tables = [table for item in facts.tests if item.runs and (table := _table(item))]
    if facts.config or not tables:
        return None
    head = "# What each image test needs, as `lockyard adopt` found it. Reference: docs/reference/image-tests.md\nschema = 1\n"
    return head + "".join(f"\n{table}" for table in tables)


def _facts(test: ImageTest, tree: Tree, known: Mapping[str, Required]) -> TestFacts:
    found = known.get(test.path)
    argument = None
    if test.kind == "dockerfile" and (match := _FROM_RE.search(tree[test.path].data.decode(errors="replace"))):
        argument = match[1]
    return TestFacts(
        path=test.path,
        packages=test.settings.packages or (found.packages if found else ()),
        types=test.settings.types or (found.types if found else ()),
        imports=_imports(tree, test.path) if test.kind == "python" else (),
        image_argument=argument,
    )


def _imports(tree: Tree, path: str) -> tuple[str, ...]:
    """Return the modules of others that a Python file imports, sorted."""
    try:
        found = ast.walk(ast.parse(tree[path].data))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    names = set()
    for node in found:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return tuple(sorted(names - sys.stdlib_module_names - {"pytest"}))


def _table(item: TestFacts) -> str:
    name = item.path.rsplit("/", 1)[-1].split(".test.")[0]
    lines = [f"packages = {json.dumps(list(item.packages))}\n"] if item.packages else []
    lines += [f"types = {json.dumps(list(item.types))}\n"] if item.types else []
    if item.image_argument not in {None, "IMAGE"}:
        lines.append(f"image-argument = {json.dumps(item.image_argument)}\n")
    return "".join([f"[tests.{json.dumps(name)}]\n", *lines]) if lines else ""


def _listed(node: ast.FunctionDef) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield file and packages of each parameter of a test."""
    for call in node.decorator_list:
        if not (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "parametrize"
        ):
            continue
        for argument in call.args[1:2]:
            try:
                rows = ast.literal_eval(argument)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                continue
            for row in rows if isinstance(rows, list | tuple) else ():
                match row:
                    case (str(file), [*names]) if file.endswith(".Dockerfile") and all(
                        isinstance(name, str) for name in names
                    ):
                        yield file, tuple(names)
