"""Compiled Python modules, effects: made by the image's own Python in the sandbox, kept per package in the cache.

A `.pyc` is of the kind that names the time and the size of its source (PEP 552), not of the unchecked kind: the times in a layer are
fixed, so both give the same bytes always, both cost an import the same single `stat`, but only this one notices a source that
somebody edits in a derived image. Modules that the package itself ships compiled stay as they are.

A pack is one file: a line of JSON (`files`: `[path, source, size, sha256]`), then the bytes one after the other.
"""

import functools
import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lockyard import fs
from lockyard.conda.lock import LockedPackage
from lockyard.engines import compiling
from lockyard.engines.changes import Piece
from lockyard.errors import BuildError, HashMismatchError
from lockyard.oci.contents import Manifest, PackagePath, Python
from lockyard.oci.image import canonical_json
from lockyard.oci.linking import LINKING_VERSION, Module
from lockyard.oci.tar import EPOCH
from lockyard.oci.values import Digest
from lockyard.ports.containers import Runner, RunRequest

BYTECODE_VERSION = 1
"""Goes into cache keys: raise it when the same modules would be compiled to other bytes."""
TIMEOUT = 3600.0
"""Seconds for all packages of an image."""
_WORK = "/.lockyard"
_NAME_RE = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Job:
    """The modules (targets) of one package that want compiling."""

    manifest: Manifest
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """The compiled modules of one package in the cache; `key` names all that they depend on."""

    path: Path
    key: str

    def modules(self) -> tuple[Module, ...]:
        """Read what there is.

        Raises:
            BuildError: the file is damaged.

        """
        try:
            with self.path.open("rb") as stream:
                head = stream.readline()
            out, offset = [], len(head)
            for path, source, size, sha256 in json.loads(head)["files"]:
                chunks = functools.partial(_checked, Piece(self.path, offset, size), sha256)
                out.append(Module(path, source, size, sha256, chunks))
                offset += size
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(self.path) from error
        return tuple(out)


def _checked(piece: Piece, sha256: str) -> Iterator[bytes]:
    data = b"".join(piece.chunks())
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _damaged(piece.path)
    yield data


def _damaged(path: Path) -> HashMismatchError:
    return HashMismatchError(f"{path} in the cache is damaged", hint="remove it and build again")


def key(package: LockedPackage, interpreter: LockedPackage, python: Python, prefix: str) -> str:
    """Return what the compiled modules of a package depend on: its own bytes, the interpreter's, and the place."""
    value = {
        "versions": [BYTECODE_VERSION, LINKING_VERSION],
        "package": [package.dist, package.sha256 or package.md5, package.noarch],
        "interpreter": [interpreter.dist, interpreter.sha256 or interpreter.md5],
        "places": [python.executable, python.site_packages],
        "prefix": prefix,
    }
    return Digest.of(canonical_json(value)).hex


def closure(name: str, packages: Sequence[LockedPackage]) -> frozenset[str]:
    """Return the names of a package and of all that it depends on."""
    by_name = {package.name: package for package in packages}
    found: set[str] = set()
    todo = [name]
    while todo:
        current = todo.pop()
        if current in by_name and current not in found:
            found.add(current)
            todo += [text.split()[0] for text in by_name[current].depends]
    return frozenset(found)


def job(manifest: Manifest, python: Python) -> Job:
    """Find the modules of a package below the interpreter's library that it does not ship compiled."""
    library = posixpath.dirname(python.site_packages) + "/"
    shipped = set()
    for target in manifest.targets:
        directory, name = posixpath.split(target)
        if name.endswith(".pyc") and posixpath.basename(directory) == "__pycache__":
            shipped.add(f"{posixpath.dirname(directory)}/{name.split('.')[0]}.py")
    modules = tuple(
        target
        for target, item in manifest.targets.items()
        if target.endswith(".py") and target.startswith(library) and target not in shipped
        and isinstance(item, PackagePath) and item.kind == "hardlink"
    )  # fmt: skip
    return Job(manifest, modules)


def compile_modules(
    runner: Runner, jobs: Sequence[Job], *, sources: Path, tree: Path, prefix: str, python: Python, work: Path,
    workers: int,
) -> list[dict[str, tuple[str, Path]]]:  # fmt: skip
    """Compile the modules of `jobs`; job N has its sources below `sources/N/PREFIX`. Return module → (target, file) of each.

    Raises:
        BuildError: the image's Python does not run.

    """
    out = work / "out"
    out.mkdir()
    inside = prefix.lstrip("/")
    packages = [
        [
            [
                f"{_WORK}/sources/{number}/{inside}/{module}",
                f"{prefix}/{module}",
                f"{_WORK}/out/{number}/{index}",
                EPOCH,
            ]
            for index, module in enumerate(item.modules)
        ]
        for number, item in enumerate(jobs)
    ]
    (work / "job.json").write_text(json.dumps({"packages": packages}))
    executable = f"{prefix}/{python.executable}"
    done = runner.run(
        RunRequest(
            argv=(executable, "-S", "-s", "-B", f"{_WORK}/compiling.py", f"{_WORK}/job.json", str(workers)),
            env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "", "LC_ALL": "C.UTF-8"},
            workdir="/", timeout=TIMEOUT,
            binds=(
                (tree, prefix, False), (sources, f"{_WORK}/sources", False), (out, f"{_WORK}/out", True),
                (work / "job.json", f"{_WORK}/job.json", False),
                (Path(compiling.__file__), f"{_WORK}/compiling.py", False),
            ),
        )
    )  # fmt: skip
    tag = done.output.rstrip().rpartition("tag ")[2]
    if done.exit_code != 0 or not _NAME_RE.fullmatch(tag):
        raise BuildError(
            f"the image's Python could not compile modules: {executable} ended with exit code {done.exit_code}",
            hint="build without them: compile-pyc = false in variants.toml",
            details=done.output.strip().splitlines()[-12:],
        )
    return [
        {
            module: (_compiled_name(module, tag), out / str(number) / str(index))
            for index, module in enumerate(item.modules)
            if (out / str(number) / str(index)).is_file()
        }
        for number, item in enumerate(jobs)
    ]


def _compiled_name(module: str, tag: str) -> str:
    directory, name = posixpath.split(module)
    return f"{directory}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc"


def write_pack(path: Path, compiled: Mapping[str, tuple[str, Path]]) -> None:
    """Write a pack: module → (target, file with its bytes)."""
    files, bodies = [], []
    for module, (target, place) in sorted(compiled.items(), key=lambda item: item[1][0].split("/")):
        data = place.read_bytes()
        files.append([target, module, len(data), hashlib.sha256(data).hexdigest()])
        bodies.append(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    fs.atomic_write(path, b"".join((canonical_json({"files": files}), b"\n", *bodies)))
