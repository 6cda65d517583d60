"""Use case: adopt an existing tree of release directories; it is read, and its configuration is written beside it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lockyard import fs
from lockyard.adoption.dockerfiles import DockerfileFacts, read_dockerfile
from lockyard.adoption.generator import Generated, read_json, read_python
from lockyard.adoption.lines import (
    LineFacts,
    LineSources,
    format_distribution,
    format_line,
    newest_of,
    read_line,
    types_of,
)
from lockyard.adoption.reproduce import Reproduced, bump_between, reproduce
from lockyard.adoption.suites import Required, SuiteFacts, format_tests, read_harness, read_tests
from lockyard.app.workspace import decode
from lockyard.artifacts.plan import SOURCE_VERSION
from lockyard.checks.plan import plain_suite
from lockyard.conda.formats import lock_from_tree
from lockyard.conda.lock import LockedPackage
from lockyard.distribution import parse_distribution, parse_line
from lockyard.errors import ConfigError
from lockyard.ports import Toolbox
from lockyard.strict import tool_table
from lockyard.tree import File, Tree
from lockyard.version import Version, release_dir

ARTIFACTS = "build_artifacts"
_RELEASE_RE = re.compile(r"v(\d+\.\d+\.\d+.*)")
_VERSION_RE = re.compile(r"v\d")
_MINOR_RE = re.compile(r"v(\d+)\.(\d+)")
_KEPT_RE = re.compile(r"[^/]+(?:\.in|\.env\.out|\.lock\.json|\.json)|source-version\.txt|Dockerfile[^/]*")
_SPECS_RE = re.compile(r"[^/]+(?:\.env\.in|\.env\.out|\.lock\.json)|source-version\.txt")
_TABLE = "[tool.lockyard] in pyproject.toml"
_MAX_PYTHON = 1_000_000  # bytes; no configuration is longer


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """A directory below `build_artifacts` that is no release, and why; `waiting` holds inputs of a release to come."""

    path: str
    why: str
    waiting: bool = False


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What was found, and the files that say so: `files` are written unless they are `present` already."""

    name: str
    releases: tuple[Version, ...]
    unrecognised: tuple[Unrecognised, ...]
    reproduced: tuple[Reproduced, ...]
    unknown_base: tuple[str, ...]
    lines: tuple[LineFacts, ...]
    dockerfiles: tuple[DockerfileFacts, ...]
    suites: tuple[SuiteFacts, ...]
    files: Tree
    present: tuple[str, ...] = ()
    written: bool = False

    @property
    def found(self) -> int:
        """How many directories look like releases."""
        return len(self.releases) + sum(not item.waiting for item in self.unrecognised)


def adopt_tree(toolbox: Toolbox, root: Path, *, name: str | None = None, dry_run: bool = False) -> Adoption:
    """Read the tree below `root` and write its configuration; nothing below `build_artifacts` is touched.

    A dry run writes nothing, and reads a tree that is adopted already, too.

    Raises:
        ConfigError: there are no releases, or a file of the configuration is there already.
        OSError: it cannot be written; then nothing of it is left.

    """
    if not (root / ARTIFACTS).is_dir():
        raise ConfigError(
            f"there is no {ARTIFACTS}/ in {root}: nothing to adopt",
            hint="give the root of the tree with --root DIR, or begin a new distribution: lockyard init",
        )
    chosen = name or _slug(root.name)
    releases, unrecognised = _releases(root)
    if not releases:
        details = [f"{item.path}: {item.why}" for item in unrecognised[:10]]
        raise ConfigError(
            f"no release below {root / ARTIFACTS}", details=details, hint="a release is v1/v1.4/v1.4.2 there"
        )
    present = _present(root, releases)
    if present and not dry_run:
        raise ConfigError(
            f"{', '.join(present)}: there already; adopt overwrites nothing",
            hint="lockyard adopt --dry-run shows what is found; change these files by hand, or remove them first",
        )
    toolbox.log.step(f"reading {len(releases)} releases")
    dockerfiles = _dockerfiles(root, releases)
    lines = tuple(_lines(root, releases, {item.path: item for item in dockerfiles}))
    required = _required(root, lines)
    suites = tuple(_suites(root, required))
    files = _files(chosen, lines, suites)
    reproduced, unknown = _reproduced(toolbox, root, releases, files)
    written = {path: file for path, file in files.items() if path not in present and not _is_told(path, present)}
    if not dry_run:
        _write(root, written)
    return Adoption(
        name=chosen,
        releases=tuple(releases),
        unrecognised=unrecognised,
        reproduced=reproduced,
        unknown_base=unknown,
        lines=lines,
        dockerfiles=dockerfiles,
        suites=suites,
        files=Tree(written),
        present=present,
        written=not dry_run,
    )


def _write(root: Path, files: Mapping[str, File]) -> None:
    """Write all files; after a failure none of them is there, so that the command can be given again."""
    try:
        for path, file in files.items():
            fs.atomic_write(root / path, file.data)
    except BaseException:
        for path in files:
            (root / path).unlink(missing_ok=True)
        raise


def _releases(root: Path) -> tuple[dict[Version, tuple[str, ...]], tuple[Unrecognised, ...]]:
    """Return the releases with the names of their files, sorted, and the directories that look like releases and are none."""
    found: dict[Version, tuple[str, ...]] = {}
    others: list[Unrecognised] = []
    for path in _candidates(root / ARTIFACTS, 4):
        _release(root, path, found, others)
    return dict(sorted(found.items())), tuple(others)


def _candidates(directory: Path, depth: int) -> Iterator[Path]:
    """Yield the directories that are named after a version of three numbers, as deep as a nested pre-release."""
    for path in fs.subdirectories(directory):
        if _RELEASE_RE.fullmatch(path.name):
            yield path
        if depth > 1 and _VERSION_RE.match(path.name):
            yield from _candidates(path, depth - 1)


def _release(root: Path, path: Path, found: dict[Version, tuple[str, ...]], others: list[Unrecognised]) -> None:
    relative = str(path.relative_to(root))
    try:
        version = Version.parse(path.name.removeprefix("v"))
    except ConfigError as error:
        others.append(Unrecognised(relative, error.message))
        return
    names = fs.names(path)
    if str(release_dir(version)) != relative:
        others.append(Unrecognised(relative, f"its place would be {release_dir(version)}"))
    elif any(_SPECS_RE.fullmatch(name) for name in names):
        found[version] = names
    elif any(name.endswith(".in") for name in names):
        others.append(Unrecognised(relative, "inputs of a release to come", waiting=True))
    elif not any(_RELEASE_RE.fullmatch(name) for name in names):
        others.append(Unrecognised(relative, "neither source-version.txt nor specs nor a lock"))


def _present(root: Path, releases: Mapping[Version, object]) -> tuple[str, ...]:
    """Return the files of a configuration that are there already."""
    majors = sorted({version.major for version in releases})
    paths = ["lockyard.toml", *(f"template/v{major}/variants.toml" for major in majors)]
    found = [path for path in paths if (root / path).exists()]
    return tuple([*found, _TABLE] if _has_table(_text(root / "pyproject.toml")) else found)


def _has_table(pyproject: str) -> bool:
    """Tell whether `pyproject.toml` configures a distribution; a Python package's own table does not."""
    try:
        return bool(set(tool_table(pyproject, "pyproject.toml", "lockyard")) - {"package"})
    except ConfigError:
        return False


def _is_told(path: str, present: tuple[str, ...]) -> bool:
    """Tell whether another file that is there says what a file would say."""
    return path == "lockyard.toml" and _TABLE in present


def _tree(root: Path, version: Version) -> Tree:
    """Read what a release's plan and its configuration depend on; the files for the image stay unread."""
    return fs.read_tree(root / release_dir(version), skip=lambda path: _KEPT_RE.fullmatch(path) is None)


def _text(path: Path) -> str:
    return (fs.read_file(path) or b"").decode(errors="replace")


def _dockerfiles(root: Path, releases: Mapping[Version, Sequence[str]]) -> tuple[DockerfileFacts, ...]:
    """Read the Dockerfiles of all templates and releases."""
    paths = [f"template/{name}" for name in fs.names(root / "template") if name.startswith("Dockerfile")]
    for major in fs.subdirectories(root / "template"):
        for place in (major, *(path for path in fs.subdirectories(major) if _MINOR_RE.fullmatch(path.name))):
            paths += [
                str((place / name).relative_to(root)) for name in fs.names(place) if name.startswith("Dockerfile")
            ]
    for version, names in releases.items():
        paths += [str(release_dir(version) / name) for name in names if name.startswith("Dockerfile")]
    # A template of Jinja2 is read where it is rendered: in the releases.
    wanted = (path for path in paths if not path.endswith((".j2", ".base")) and (root / path).is_file())
    return tuple(read_dockerfile(_text(root / path), path) for path in wanted)


def _lines(
    root: Path, releases: Mapping[Version, Sequence[str]], dockerfiles: Mapping[str, DockerfileFacts]
) -> Iterator[LineFacts]:
    generated = _generated(root)
    for major in sorted({version.major for version in releases}):
        types = {version: types_of(names) for version, names in releases.items() if version.major == major}
        typed = {version: names for version, names in types.items() if names}
        if not typed:
            raise ConfigError(
                f"no release of line {major} has a TYPE.env.in or TYPE.env.out: its image types are unknown"
            )
        newest = newest_of(typed)
        tree = _tree(root, newest)
        locks, problems = _locks(tree, newest, typed[newest])
        places = [release_dir(newest), *(Path("template", *parts) for parts in _template_parts(newest))]
        facts = next((dockerfiles[path] for place in places if (path := f"{place}/Dockerfile") in dockerfiles), None)
        yield read_line(
            LineSources(
                major=major,
                releases=typed,
                tree=tree,
                locks=locks,
                problems=problems,
                dockerfile=facts,
                generated=(*_json_values(root, tree, newest, typed[newest]), *generated),
            )
        )


def _locks(
    tree: Tree, version: Version, types: Sequence[str]
) -> tuple[dict[str, tuple[LockedPackage, ...]], tuple[str, ...]]:
    """Return the locks of a release, and what is wrong with those that tell nothing."""
    locks: dict[str, tuple[LockedPackage, ...]] = {}
    problems = []
    for name in types:
        try:
            lock = lock_from_tree(tree, name, source=str(release_dir(version)))
        except ConfigError as error:
            problems.append(f"{error.message}; until it is mended no release can be made from this one")
            continue
        if lock is not None:
            locks[name] = lock.packages(lock.first_platform)
    return locks, tuple(problems)


def _template_parts(version: Version) -> tuple[tuple[str, ...], ...]:
    return (f"v{version.major}", f"v{version.major}.{version.minor}"), (f"v{version.major}",), ()


def _json_values(root: Path, tree: Tree, newest: Version, types: Sequence[str]) -> Iterator[Generated]:
    """Yield the values in JSON files of the newest release, then of its templates."""
    for path in tree:
        if path.endswith(".json"):
            found = read_json(tree[path].data.decode(errors="replace"), f"{release_dir(newest)}/{path}", types)
            if found is not None:
                yield found
    for parts in _template_parts(newest):
        place = Path("template", *parts)
        for name in fs.names(root / place):
            found = read_json(_text(root / place / name), f"{place}/{name}", types) if name.endswith(".json") else None
            if found is not None:
                yield found


def _generated(root: Path) -> tuple[Generated, ...]:
    """Read the values that an earlier generator's own Python files hold as literals."""
    found: list[Generated] = []
    for place in (root, root / "src"):
        for name in fs.names(place):
            path = place / name
            if name.endswith(".py") and path.is_file() and path.stat().st_size <= _MAX_PYTHON:
                text = _text(path)
                if "build_args" in text:
                    found += read_python(text, str(path.relative_to(root)))
    return tuple(found)


def _required(root: Path, lines: Sequence[LineFacts]) -> tuple[Required, ...]:
    types = {item.name for line in lines for item in line.types}
    found: dict[str, Required] = {}
    for name in fs.names(root / "test"):
        path = root / "test" / name
        if name.endswith(".py") and path.is_file() and path.stat().st_size <= _MAX_PYTHON:
            text = _text(path)
            if ".Dockerfile" in text:
                found |= {item.file: item for item in read_harness(text, types)}
    return tuple(found.values())


def _suites(root: Path, required: Sequence[Required]) -> Iterator[SuiteFacts]:
    """Read the suites: of each major line, and of the whole distribution."""
    places = [root / "test" / "image"]
    places += [path for path in fs.subdirectories(root / "test" / "test_artifacts") if path.name.startswith("v")]
    for place in places:
        tree = plain_suite(fs.read_tree(place))
        if tree:
            yield read_tests(str(place.relative_to(root)), tree, required)


def _files(name: str, lines: Sequence[LineFacts], suites: Sequence[SuiteFacts]) -> Tree:
    """Return the configuration, checked as every command will read it."""
    texts = {"lockyard.toml": format_distribution(name)} | {line.path: format_line(line) for line in lines}
    parse_distribution(texts["lockyard.toml"], source="lockyard.toml")
    for line in lines:
        parse_line(texts[line.path], source=line.path)
    tests = {f"{item.place}/tests.toml": text for item in suites if (text := format_tests(item)) is not None}
    return Tree({path: File.text(text) for path, text in {**texts, **tests}.items()})


def _reproduced(
    toolbox: Toolbox, root: Path, releases: Mapping[Version, Sequence[str]], files: Tree
) -> tuple[tuple[Reproduced, ...], tuple[str, ...]]:
    """Plan every release again that says from which one it was made; the others are named."""
    found: list[Reproduced] = []
    unknown: list[str] = []
    trees: dict[Version, Tree] = {}

    def tree_of(version: Version) -> Tree:
        if version not in trees:
            if len(trees) > 8:  # releases come in order: a base is read soon before its successors
                trees.pop(next(iter(trees)))
            trees[version] = _tree(root, version)
        return trees[version]

    with toolbox.log.progress("planning releases again", len(releases), "releases") as advance:
        for version in releases:
            advance(1)
            target = tree_of(version)
            base = _source_version(target)
            part = bump_between(base, version) if base in releases and base is not None else None
            if base is None or part is None:
                why = (
                    "no source-version.txt" if base is None else f"{base} is no release" if base not in releases else ""
                )
                unknown.append(f"{version}: {why or f'no bump leads there from {base}'}")
                continue
            path = f"template/v{version.major}/variants.toml"
            # The rules that `create` has: those of a tree that is adopted already are its own.
            there = fs.read_file(root / path)
            line = parse_line(decode(there, path) if there is not None else files[path].data.decode(), source=path)
            found += reproduce(
                base, version, part, line=line, source=path, base_tree=tree_of(base), target_tree=target,
                environ=toolbox.environ,
            )  # fmt: skip
    return tuple(found), tuple(unknown)


def _source_version(tree: Mapping[str, File]) -> Version | None:
    if SOURCE_VERSION not in tree:
        return None
    try:
        return Version.parse(tree[SOURCE_VERSION].data.decode(errors="replace").strip())
    except ConfigError:
        return None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "distribution"
