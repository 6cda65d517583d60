"""Bundles: everything that the image of a Python package is built from, as one deterministic tar. No I/O here.

A bundle holds the project's files less what `.dockerignore` leaves out, and whatever that says the Dockerfile, the wheel of the
package, the locked requirements and the wheels that the runtime asks for.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lockyard.oci.globs import Ignore
from lockyard.oci.tar import Entry
from lockyard.pyrelease.runtimes import Runtime
from lockyard.tree import SYMLINK, Tree

IGNORE = ".dockerignore"


@dataclass(frozen=True, slots=True)
class Content:
    """A file of a bundle that is read when it is needed: its mode, its size in bytes, and what gives its bytes."""

    mode: int
    size: int
    chunks: Callable[[], Iterable[bytes]]


Contents: TypeAlias = Mapping[str, Content]
"""Relative path → file."""


def contents_of(tree: Tree) -> dict[str, Content]:
    """Return the files of a tree."""
    return {
        path: Content(file.mode, len(file.data), lambda data=file.data: (data,))  # type: ignore[misc]  # the default binds this file's bytes
        for path, file in tree.items()
    }


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What an image is built from. `image_version` goes into its tag and label; `wheel` is the file name of the package's wheel.

    `revision` is the commit that the files are of, `None` for the work tree; `epoch` is the time of the commit below it, seconds.
    """

    runtime: Runtime
    package: str
    image_version: str
    dockerfile: str
    wheel: str
    revision: str | None
    epoch: int
    files: Contents

    def entries(self) -> Iterator[Entry]:
        """Give the entries of the tar: sorted, with parents; owners, times and modes do not depend on the machine."""
        seen: set[str] = set()
        for path, file in sorted(self.files.items()):
            for parent in _parents(path):
                if parent not in seen:
                    seen.add(parent)
                    yield Entry(parent.encode(errors="surrogateescape"), "directory", 0o755)
            name = path.encode(errors="surrogateescape")
            if file.mode == SYMLINK:
                yield Entry(name, "symlink", 0o777, target=b"".join(file.chunks()))
            else:
                mode = 0o755 if file.mode & 0o111 else 0o644
                yield Entry(name, "file", mode, size=file.size, chunks=file.chunks)


def not_ignored(files: Contents, dockerfile: str) -> dict[str, Content]:
    """Return the files less what `DOCKERFILE.dockerignore` or `.dockerignore` leaves out, and without these two.

    Raises:
        BuildError: the file is malformed.

    """
    name = next((name for name in (f"{dockerfile}{IGNORE}", IGNORE) if name in files), None)
    if name is None:
        return dict(files)
    ignore = Ignore.parse(b"".join(files[name].chunks()).decode(errors="replace"), name)
    # An engine that found it would leave out what a bundle adds.
    return {path: file for path, file in files.items() if not ignore.excludes(path) and not path.endswith(IGNORE)}


def image_version(pkg_version: str, commit: str, described: str | None, tag: str, *, dirty: bool = False) -> str:
    """Return the version of an image of a commit: its tag's, or how far it is from the last one.

    `described` is what `git describe --long` says, `None` without a tag; `tag` is the pattern of releases' tags.

    >>> image_version("1.3.0a1", "abc1234def", "v1.2.0-0-gabc1234", "v{version}")
    '1.2.0'
    >>> image_version("1.3.0a1", "abc1234def", "v1.2.0-3-gabc1234", "v{version}", dirty=True)
    '1.2.0-3-gabc1234-dirty'
    >>> image_version("1.3.0a1", "abc1234def", None, "v{version}")
    '1.3.0a1-gabc1234'
    """
    if described is None:
        text = f"{pkg_version}-g{commit[:7]}"
    else:
        name, count, short = described.rsplit("-", 2)
        before, _, after = tag.partition("{version}")
        version = name.removeprefix(before).removesuffix(after)
        text = version if count == "0" else f"{version}-{count}-{short}"
    return f"{text}-dirty" if dirty else text


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))
