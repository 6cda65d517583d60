"""The use case of bundling: what an image of a Python package is built from, out of a commit or the work tree."""

import contextlib
import hashlib
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lockyard import fs, process
from lockyard.app.packagebuild import DIST, BuildOptions, build_package
from lockyard.app.runtimes import own_templates, read_runtimes, templates
from lockyard.app.workspace import decode
from lockyard.errors import BuildError, ConfigError, DriftError
from lockyard.gitobjects import GitObjects
from lockyard.gitwork import GitWork
from lockyard.oci.instructions import parse
from lockyard.oci.tar import write_tar
from lockyard.oci.values import Digest
from lockyard.ports import Toolbox
from lockyard.pyrelease.bundle import Bundle, Content, contents_of, image_version, not_ignored
from lockyard.pyrelease.dist import DistFile, contents
from lockyard.pyrelease.dockerfiles import NATIVE, SITE, TEMPLATE, render_dockerfile
from lockyard.pyrelease.files import state_dir
from lockyard.pyrelease.project import PYPROJECT, Project, parse_project
from lockyard.pyrelease.runtimes import Runtime
from lockyard.pyrelease.site import site_files
from lockyard.pyrelease.uvtool import Uv
from lockyard.tree import SYMLINK, File, Tree

_BLOCK = 1 << 20
_BY_THE_BACKEND = (".dist-info/WHEEL", ".dist-info/RECORD")
"""They say by which version of a backend a wheel was built, and hold the hash of that."""


_ONCE = BuildOptions(verify=False, try_out=False)


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """Where a bundle comes from.

    `working_tree`: the files as they are, tracked or not, ignored ones left out; else those of `HEAD`. `templates_dir` has base
    templates that go before the project's own. The package's wheel is built from the same files, `build` says how; `from_dist`
    takes the one in `dist/` when it is there, which must be the same. `version` is the image's, `None` for what `git describe` says.
    """

    working_tree: bool = False
    templates_dir: Path | None = None
    from_dist: bool = False
    build: BuildOptions = _ONCE
    version: str | None = None


DEFAULT = BundleOptions()


@dataclass(frozen=True)
class Checkout:
    """The files of a project as a bundle takes them; `revision` is `None` for the work tree, `epoch` the commit's time, seconds.

    `image_version` is by `git describe`; `wheel` is the package's.
    """

    project: Project
    files: Mapping[str, Content]
    revision: str | None
    epoch: int = 0
    image_version: str = ""
    wheel: Path = Path()

    def read(self, path: str) -> str | None:
        """Return the text of a file, `None` when it is not there."""
        file = self.files.get(path)
        return None if file is None else decode(b"".join(file.chunks()), path)


@contextlib.contextmanager
def check_out(toolbox: Toolbox, project: Project, options: BundleOptions) -> Iterator[Checkout]:
    """Read the files of `HEAD`, or of the work tree, and give them with the wheel that belongs to them.

    Raises:
        ConfigError: there is no commit, or its `pyproject.toml` is wrong.
        BuildError: the wheel cannot be built.

    """
    git = GitWork(project.root, toolbox.environ)
    commit = git.head()
    if options.working_tree:
        files = _on_disk(project.root, git.files())
    else:
        files = contents_of(GitObjects(project.root, toolbox.environ).read_tree(commit, ""))
    bare = Checkout(project, files, None if options.working_tree else commit)
    text = bare.read(PYPROJECT)
    if text is None:
        raise ConfigError(f"{PYPROJECT} is not in {_place(bare)}", hint="commit it")
    there = parse_project(text, root=project.root, read=bare.read)
    version = image_version(
        str(there.version), commit, git.describe(there.table.tag.format(version="*")), there.table.tag,
        dirty=options.working_tree and bool(git.status()),
    )  # fmt: skip
    with process.own_directory(state_dir(project.root)) as scratch:
        found = replace(bare, project=there, epoch=git.time(commit), image_version=version)
        yield replace(found, wheel=_wheel(toolbox, found, options, scratch))


@contextlib.contextmanager
def open_bundle(toolbox: Toolbox, checkout: Checkout, name: str, options: BundleOptions = DEFAULT) -> Iterator[Bundle]:
    """Give the bundle of a runtime; what had to be made for it is removed at the end of the `with` block.

    Raises:
        ConfigError: `runtimes.yaml` is wrong, or a file that it names is missing; the line is told.
        DriftError: the committed Dockerfile is not what `runtimes.yaml` gives.
        BuildError: the packages cannot be installed.

    """
    project = checkout.project
    runtimes = read_runtimes(project, checkout.read)
    (runtime,) = runtimes.chosen((name,))
    library = templates(_own(checkout, runtimes.templates, options.templates_dir))
    text = render_dockerfile(runtime, project.normalized_name, library)
    parse(text, runtime.dockerfile)
    committed = checkout.read(runtime.dockerfile)
    if committed is not None and committed != text:
        raise DriftError(
            f"{runtime.dockerfile} is not what {runtimes.source} gives", hint=f"lockyard runtimes generate {name}"
        )
    wheel = checkout.wheel
    files = not_ignored(checkout.files, runtime.dockerfile)
    files |= {path: checkout.files[path] for path in _needed(checkout, runtime)}
    files |= contents_of_text(runtime.dockerfile, text)
    wheels = _wheels(project, runtime)
    with contextlib.ExitStack() as stack:
        if runtime.base_template == NATIVE:
            scratch = stack.enter_context(process.own_directory(state_dir(project.root)))
            files |= _installed(toolbox, checkout, runtime, wheel, scratch)
        else:
            files |= {f"{DIST}/{wheel.name}": _stored(wheel)}
            files |= {f"{runtime.wheels}/{path.name}": _stored(path) for path in wheels}
        yield Bundle(
            runtime=runtime, package=project.normalized_name, dockerfile=runtime.dockerfile, wheel=wheel.name,
            image_version=options.version or runtime.version or checkout.image_version, revision=checkout.revision,
            epoch=checkout.epoch,             files=files,
        )  # fmt: skip


def write_bundle(bundle: Bundle, path: Path) -> Digest:
    """Write the tar of a bundle, whole or not at all, and return its digest."""
    state = hashlib.sha256()
    with process.own_directory(path.parent) as scratch:
        with (scratch / "bundle.tar").open("wb") as stream:

            def sink(data: bytes | bytearray) -> None:
                state.update(data)
                stream.write(data)

            write_tar(bundle.entries(), sink)
        (scratch / "bundle.tar").replace(path)
    return Digest(f"sha256:{state.hexdigest()}")


def _wheel(toolbox: Toolbox, checkout: Checkout, options: BundleOptions, scratch: Path) -> Path:
    """Return the wheel of these files: built from them, or the one in `dist/` when it is asked for, there, and the same.

    Raises:
        BuildError: it cannot be built, or the one in `dist/` is of other files.

    """
    made = _made(toolbox, checkout, options)
    kept = fs.read_file(checkout.project.root / DIST / made.name) if options.from_dist else None
    if kept is not None:
        mine, theirs = contents(made), contents(DistFile(made.name, kept))
        paths = (path for path in sorted({*mine, *theirs}) if mine.get(path) != theirs.get(path))
        differs = [path for path in paths if not path.endswith(_BY_THE_BACKEND)]
        if differs:
            raise BuildError(
                f"{DIST}/{made.name} is not what {_place(checkout)} gives", details=differs[:20],
                hint="lockyard package build makes it again; images hold the wheel that is published",
            )  # fmt: skip
        toolbox.log.info(f"the wheel is {DIST}/{made.name}")
        return checkout.project.root / DIST / made.name
    fs.atomic_write(scratch / made.name, made.data)
    return scratch / made.name


def _made(toolbox: Toolbox, checkout: Checkout, options: BundleOptions) -> DistFile:
    """Build the wheel; that of the last commit is kept."""
    place = state_dir(checkout.project.root) / "wheels"
    kept = place / f"{checkout.revision}{'' if options.build.isolated else '-not-isolated'}"
    names = [name for name in fs.names(kept) if name.endswith(".whl")] if checkout.revision is not None else []
    if len(names) == 1:
        return DistFile(names[0], (kept / names[0]).read_bytes())
    made = build_package(toolbox, checkout.project, options.build, revision=checkout.revision).files[1]
    if checkout.revision is not None:
        fs.write_tree(Tree({made.name: File(made.data)}), kept)
        for other in fs.subdirectories(place):
            if other != kept:
                with contextlib.suppress(OSError):  # another command tidies, too
                    fs.remove(other)
    return made


def _place(checkout: Checkout) -> str:
    return "the work tree" if checkout.revision is None else "HEAD"


def contents_of_text(path: str, text: str) -> dict[str, Content]:
    """Return a text as a file of a bundle."""
    data = text.encode()
    return {path: Content(0o644, len(data), lambda: (data,))}


def _own(checkout: Checkout, configured: str | None, directory: Path | None) -> dict[str, str]:
    """Return the base templates of the user: of the tree that is bundled, and over them those of a directory."""
    end = TEMPLATE.format(name="")
    start = f"{configured}/"
    found = {
        path.removeprefix(start): decode(b"".join(file.chunks()), path)
        for path, file in checkout.files.items()
        if configured is not None and path.startswith(start) and path.endswith(end)
    }
    return found | (own_templates(directory) if directory is not None else {})


def _needed(checkout: Checkout, runtime: Runtime) -> Iterator[str]:
    """Yield the files that the runtime names, which no `.dockerignore` leaves out."""
    where = _place(checkout)
    if runtime.requirements not in checkout.files:
        raise ConfigError(
            f"{runtime.where('requirements')}: {runtime.requirements} is not in {where}",
            hint="lockyard package lock writes it; commit it",
        )
    yield runtime.requirements
    if runtime.gpu is not None and runtime.gpu.key is not None:
        if runtime.gpu.key not in checkout.files:
            raise ConfigError(
                f"{runtime.where('gpu')}: {runtime.gpu.key} is not in {where}",
                hint="the key that signs NVIDIA's repository is a file of the project: look at it once, and commit it",
            )
        yield runtime.gpu.key


def _wheels(project: Project, runtime: Runtime) -> list[Path]:
    """Return the wheels of the dependencies: of the project's directory, ignored by git or not."""
    if runtime.wheels is None:
        return []
    directory = fs.inside(project.root, runtime.wheels, source=runtime.where("wheels"))
    found = [directory / name for name in fs.names(directory) if name.endswith(".whl")]
    if not found and runtime.base_template != NATIVE:
        raise ConfigError(
            f"{runtime.where('wheels')}: {runtime.wheels} has no wheel",
            hint=f"pip download --requirement {runtime.requirements} --dest {runtime.wheels}",
        )
    return found


def _installed(
    toolbox: Toolbox, checkout: Checkout, runtime: Runtime, wheel: Path, scratch: Path
) -> dict[str, Content]:
    """Install the dependencies and the package into directories of their own, and return their files."""
    project = checkout.project
    uv = Uv(toolbox.environ)
    locked = scratch / "requirements.txt"
    fs.atomic_write(locked, b"".join(checkout.files[runtime.requirements].chunks()))
    source = ["--no-index", "--find-links", str(project.root / runtime.wheels)] if runtime.wheels else []
    python = ["--python-version", project.table.python] if project.table.python else []
    common = ["--no-build", "--no-deps", "--link-mode", "copy", *python]
    requirement = f"{project.normalized_name}=={project.version}"
    jobs = {
        "dependencies": [*source, "--require-hashes", "--requirement", str(locked)],
        "package": ["--no-index", "--find-links", str(wheel.parent), requirement],
    }
    toolbox.log.info(f"{runtime.name}: installing {runtime.requirements} and {wheel.name}")
    found: dict[str, Content] = {}
    for part, words in jobs.items():
        target = scratch / part
        uv.install(Path(sys.executable), "--target", str(target), *common, *words)
        files = _on_disk(target, [path.relative_to(target).as_posix() for path in sorted(target.rglob("*"))])
        found |= {f"{SITE}/{part}/{path}": file for path, file in site_files(files).items()}
    return found


def _on_disk(root: Path, paths: list[str] | tuple[str, ...]) -> dict[str, Content]:
    """Return files that are read when they are needed; directories and what is gone are passed over."""
    found = {}
    for path in paths:
        place = root / path
        with contextlib.suppress(FileNotFoundError):
            if place.is_symlink() or not place.is_dir():
                found[path] = _stored(place)
    return found


def _stored(path: Path) -> Content:
    state = path.lstat()
    if stat.S_ISLNK(state.st_mode):
        target = str(path.readlink()).encode(errors="surrogateescape")
        return Content(SYMLINK, len(target), lambda: (target,))
    return Content(stat.S_IMODE(state.st_mode), state.st_size, lambda: fs.chunks(path, _BLOCK))
