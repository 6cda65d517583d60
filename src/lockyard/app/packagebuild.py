"""The use case of building a Python package: sdist and wheel, the same bytes every time, checked and tried."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from lockyard import fs, process
from lockyard.app.package import project_lock
from lockyard.app.workspace import decode
from lockyard.errors import BuildError, ConfigError
from lockyard.gitobjects import GitObjects
from lockyard.gitwork import GitWork
from lockyard.ports import Toolbox
from lockyard.pyrelease import dist
from lockyard.pyrelease.backend import Backend, Kind, twine_check
from lockyard.pyrelease.dist import DistFile
from lockyard.pyrelease.files import state_dir
from lockyard.pyrelease.project import PYPROJECT, Project, parse_project
from lockyard.pyrelease.uvtool import Uv
from lockyard.tree import SYMLINK, File, Tree

DIST = "dist"
_TRY = """\
import importlib, importlib.metadata, sys
name, version, *modules = sys.argv[1:]
said = importlib.metadata.version(name)
if said != version:
    sys.exit(f"installed is {said}, not {version}")
for module in modules:
    found = importlib.import_module(module)
    said = getattr(found, "__version__", version)
    if said != version:
        sys.exit(f"{module}.__version__ is {said}, not {version}")
for point in importlib.metadata.distribution(name).entry_points:
    if point.group == "console_scripts":
        try:
            point.load()
        except Exception as error:
            sys.exit(f"the command {point.name} does not load: {type(error).__name__}: {error}")
"""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build: `isolated` makes an environment for the backend; `verify` builds twice; `try_out` installs and imports."""

    isolated: bool = True
    verify: bool = True
    try_out: bool = True
    index_url: str | None = None


@dataclass(frozen=True, slots=True)
class PackageBuild:
    """What was built: `epoch` is the time in it (seconds since 1970), `written` the paths, sdist first."""

    version: Version
    epoch: int
    files: tuple[DistFile, DistFile]
    written: tuple[Path, ...] = ()


def build_package(
    toolbox: Toolbox,
    project: Project,
    options: BuildOptions,
    *,
    revision: str | None = None,
    epoch: int | None = None,
    out: Path | None = None,
    expect_changes: bool = False,
) -> PackageBuild:
    """Build the sdist and the wheel from the work tree, or from a revision, check them, and write them into `out`.

    Ignored files never get in. `epoch` is the time of the commit where it is not given. Changes that are not committed give a
    warning, unless they are expected.

    Raises:
        BuildError: the backend fails, a second build differs, the distributions are not as they should be, or cannot be used.
        ConfigError: there is no git repository, no commit or no such revision.

    """
    git = GitWork(project.root, toolbox.environ)
    commit = git.head() if revision is None else git.resolve(revision)
    if commit is None:
        raise ConfigError(f"git has no revision {revision!r}", hint="see git log and git tag")
    epoch = git.time(commit) if epoch is None else epoch
    tree = _exported(toolbox, project, git, commit if revision is not None else None, expect_changes=expect_changes)
    project = parse_project(
        decode(tree[PYPROJECT].data, PYPROJECT), root=project.root, read=lambda path: _text(tree, path)
    )
    state = state_dir(project.root)
    with fs.temporary_directory(state, "build") as work:
        toolbox.log.step(f"Building {project.name} {project.version}")
        uv = Uv(toolbox.environ, options.index_url)
        python = uv.create(work / "backend") if options.isolated else Path(sys.executable)
        bench = _Bench(toolbox, options, uv, python, epoch)
        files = bench.build(tree, work / "first")
        with ThreadPoolExecutor(1) as pool:  # all of it is waiting for other programs
            second = pool.submit(bench.build, tree, work / "second", again=True) if options.verify else None
            _check(toolbox, project, git, files, work)
            if options.try_out:
                _try_out(toolbox, project, uv, tree, files[1], work)
            if second is not None:
                _compare(files, second.result())
                toolbox.log.info("built twice: the same bytes")
        written = () if out is None else _keep(project, files, out)
    return PackageBuild(project.version, epoch, files, written)


def _exported(toolbox: Toolbox, project: Project, git: GitWork, revision: str | None, *, expect_changes: bool) -> Tree:
    """Return the files to build from."""
    if revision is not None:
        tree = GitObjects(project.root, toolbox.environ).read_tree(revision, "")
    else:
        changed = git.status()
        if changed and not expect_changes:
            toolbox.log.warning(f"built from the work tree, which differs from its commit in {len(changed)} files")
        tree = Tree({path: file for path in git.files() if (file := _file(project.root / path)) is not None})
    if PYPROJECT not in tree:
        raise ConfigError(f"git does not know {PYPROJECT}", hint="git add it")
    return tree


def _file(path: Path) -> File | None:
    """Read a file or a link; git lists removed files, and directories that are repositories of their own."""
    if path.is_symlink():
        return File(os.fsencode(path.readlink()), SYMLINK)
    if not path.is_file():
        return None
    return File(path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644)


@dataclass(frozen=True, slots=True)
class _Bench:
    """Where builds happen: the Python that has the backend; the same for all builds of one command."""

    toolbox: Toolbox
    options: BuildOptions
    uv: Uv
    python: Path
    epoch: int

    def build(self, tree: Tree, work: Path, *, again: bool = False) -> tuple[DistFile, DistFile]:
        """Build the sdist of `tree`, and the wheel from that sdist; `again` says that all they require is there."""
        made = self._one("sdist", tree, work, again=again)
        sdist = DistFile(made.name, dist.steady_sdist(made.data, self.epoch))
        return sdist, self._one("wheel", dist.unpacked(sdist), work, again=again)

    def _one(self, kind: Kind, tree: Tree, work: Path, *, again: bool) -> DistFile:
        source, out = work / kind, work / f"{kind}-out"
        fs.write_tree(tree, source)
        _set_times(source, self.epoch)
        out.mkdir()
        backend = Backend(source, self.python, environ=self.toolbox.environ, epoch=self.epoch, log=self.toolbox.log)
        if not again:
            self._prepare(backend, kind)
        return backend.build(kind, out)

    def _prepare(self, backend: Backend, kind: Kind) -> None:
        """Bring what the backend requires, or look whether it is here."""
        if self.options.isolated:
            self.uv.install(self.python, *backend.requires())
            wanted = backend.requires_for(kind)
            if wanted:
                self.uv.install(self.python, *wanted)
        elif lacking := backend.lacking(kind):
            raise BuildError(
                f"the build needs {', '.join(lacking)}, and they are not installed here",
                hint="without --no-isolation uv brings them",
            )


def _set_times(directory: Path, epoch: int) -> None:
    for path in (directory, *directory.rglob("*")):
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _compare(first: tuple[DistFile, DistFile], second: tuple[DistFile, DistFile]) -> None:
    for one, other in zip(first, second, strict=True):
        if one != other:
            raise BuildError(
                f"{one.name}: a second build gives other bytes",
                details=dist.differing(one, other) if one.name == other.name else [other.name],
                hint="something in the build depends on the moment or the machine; --no-verify builds once",
            )


def _check(toolbox: Toolbox, project: Project, git: GitWork, files: tuple[DistFile, DistFile], work: Path) -> None:
    sdist, wheel = files
    found = dist.problems(project, project.version, sdist, wheel)
    if found:
        strange = any("has no module" in line for line in found)
        raise BuildError(
            "the distributions are not as they should be", details=found[:30],
            hint="modules in [tool.lockyard.package] names the modules" if strange else None,
        )  # fmt: skip
    for path in dist.left_out(git.tracked(), wheel):
        toolbox.log.warning(f"{path} is in the repository, and not in {wheel.name}")
    paths = write_distributions(files, work / "checked")
    for line in twine_check(paths, toolbox.environ):
        toolbox.log.warning(line)
    counts = [f"{file.name}: {len(dist.contents(file))} files, {len(file.data):,} bytes" for file in files]
    for line in counts:
        toolbox.log.info(line)


def _try_out(toolbox: Toolbox, project: Project, uv: Uv, tree: Tree, wheel: DistFile, work: Path) -> None:
    """Install the wheel into a fresh environment, with what is locked where there is a lock, and import it."""
    python = uv.create(work / "environment")
    (path,) = write_distributions((wheel,), work / "wheel")
    locked = _locked(project, tree)
    if locked is not None:
        pins = work / "requirements.txt"
        pins.write_text(locked)
        uv.install(python, "--require-hashes", "--requirements", str(pins))
        uv.install(python, "--no-deps", str(path))
    else:
        extras = f"[{','.join(project.extras)}]" if project.extras else ""
        uv.install(python, f"{project.name}{extras} @ {path.as_uri()}")
    uv.check(python)
    argv = [str(python), "-I", "-c", _TRY, project.name, str(project.version), *project.modules]
    done = process.capture(argv, env={"PATH": process.PATH, "HOME": str(work)}, timeout=300.0)
    if done.exit_code != 0:
        raise BuildError(
            f"{wheel.name} does not work where it is installed", details=done.stderr.strip().splitlines()[-15:]
        )
    what = f"imports {', '.join(project.modules)}" + (
        f"; commands {', '.join(project.scripts)}" if project.scripts else ""
    )
    toolbox.log.info(f"installed into a fresh environment{' with what is locked' if locked else ''}: {what}")


def _locked(project: Project, tree: Tree) -> str | None:
    """Return the lock of the set with the most extras and no groups, where there is one."""
    sets = [(len(chosen.extras), name) for name, chosen in project.sets.items() if not chosen.groups]
    for _, name in sorted(sets, reverse=True):
        text = _text(tree, project.requirements_path(name))
        if text is not None:
            return text
    return None


def _keep(project: Project, files: tuple[DistFile, ...], out: Path) -> tuple[Path, ...]:
    with project_lock(project.root):
        if not (out / ".gitignore").exists():
            fs.atomic_write(out / ".gitignore", b"*\n")
        return write_distributions(files, out)


def write_distributions(files: tuple[DistFile, ...], directory: Path) -> tuple[Path, ...]:
    """Write distributions into a directory, and return their paths."""
    for file in files:
        fs.atomic_write(directory / file.name, file.data)
    return tuple(directory / file.name for file in files)


def _text(tree: Tree, path: str) -> str | None:
    return decode(tree[path].data, path) if path in tree else None
