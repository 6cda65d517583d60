"""What the plan of a release depends on, and which files of a release directory people write. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lockyard.distribution import Distribution, Line
from lockyard.tree import Tree
from lockyard.version import Bump, Version

_HAND_WRITTEN_RE = re.compile(
    r"[^/]*(?:additional_packages_env|arg_based_env|pinned_env)\.in|patch_.*|Dockerfile-[^/]*\.patch"
)


@dataclass(frozen=True, kw_only=True)
class TemplateSources:
    """The files below `template/vX/vX.Y`, below the previous minor line's, and below `template/vX` without minor lines."""

    minor: Tree = field(default_factory=Tree)
    previous_minor: Tree = field(default_factory=Tree)
    major: Tree = field(default_factory=Tree)


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """All that a plan depends on.

    `base_tree` are the base release's files; `target_tree` is what the target directory holds already, `nested` the names of
    pre-release directories in it, `exists` whether it is a release; `assets` are file name → file; `environ` gives
    arguments their values; `line_source` is the path of `variants.toml`.
    """

    base: Version
    version: Version
    bump: Bump
    distribution: Distribution
    line: Line
    line_source: str
    base_tree: Tree
    target_tree: Tree = field(default_factory=Tree)
    nested: tuple[str, ...] = ()
    exists: bool = False
    templates: TemplateSources
    assets: Tree = field(default_factory=Tree)
    environ: Mapping[str, str] = field(default_factory=dict)


def is_hand_written(path: str) -> bool:
    """Tell whether a file of a release directory is one that people write and no command replaces."""
    return _HAND_WRITTEN_RE.fullmatch(path) is not None
