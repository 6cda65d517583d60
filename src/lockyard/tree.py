"""A tree: a sorted immutable map of relative path to file, and the difference of two trees. No I/O here; `fs` writes it."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, Self

from lockyard.errors import ConfigError

SYMLINK = 0o120777
"""The mode of a symbolic link; its data is the target."""


@dataclass(frozen=True, slots=True)
class File:
    """A regular file (`mode` holds the permission bits) or a symbolic link (`mode` is `SYMLINK`)."""

    data: bytes
    mode: int = 0o644

    @classmethod
    def text(cls, text: str) -> Self:
        """Make a regular file from text, UTF-8."""
        return cls(text.encode())

    @classmethod
    def link(cls, target: str) -> Self:
        """Make a symbolic link."""
        return cls(target.encode(), SYMLINK)

    @property
    def is_link(self) -> bool:
        """Whether this is a symbolic link."""
        return self.mode == SYMLINK


def check_relative(path: str) -> str:
    """Return `path` when it is a normal relative path that cannot leave its root.

    Raises:
        ConfigError: it is absolute, empty, holds `..`, `.`, `//`, a backslash or a control character.

    """
    parts = path.split("/")
    if "\\" in path or any(part in {"", ".", ".."} for part in parts) or any(ord(char) < 32 for char in path):
        raise ConfigError(f"{path!r} is not a plain relative path")
    return path


@dataclass(frozen=True)
class Tree(Mapping[str, File]):
    """A sorted immutable map of relative POSIX path to `File`.

    >>> Tree({"b": File(b""), "a": File(b"")}).digest == Tree({"a": File(b""), "b": File(b"")}).digest
    True
    """

    files: Mapping[str, File] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked = {check_relative(path): self.files[path] for path in sorted(self.files)}
        for path in checked:
            for parent in PurePosixPath(path).parents:
                if str(parent) in checked:
                    raise ConfigError(f"{parent} is both a file and a directory (of {path})")
        object.__setattr__(self, "files", checked)

    def __getitem__(self, path: str) -> File:
        return self.files[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def merge(self, other: Mapping[str, File]) -> "Tree":
        """Return a tree with `other` laid over this one."""
        return Tree({**self.files, **other})

    @property
    def digest(self) -> str:
        """`sha256:` and the hex digest over paths, modes and data."""
        state = hashlib.sha256()
        for path, file in self.files.items():
            state.update(f"{path}\0{file.mode:o}\0{len(file.data)}\0".encode())
            state.update(file.data)
        return f"sha256:{state.hexdigest()}"


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs between two trees."""

    path: str
    kind: Literal["added", "changed", "removed"]
    old: File | None
    new: File | None


def diff(old: Mapping[str, File], new: Mapping[str, File]) -> tuple[Change, ...]:
    """Return the changes that lead from `old` to `new`, sorted by path."""
    changes = []
    for path in sorted({*old, *new}):
        before, after = old.get(path), new.get(path)
        if before == after:
            continue
        kind: Literal["added", "changed", "removed"] = (
            "added" if before is None else "removed" if after is None else "changed"
        )
        changes.append(Change(path, kind, before, after))
    return tuple(changes)
