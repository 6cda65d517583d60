"""The plan of a new release: base release and configuration in, the files of the next release out. Pure, printable.

`lockyard.app.create` reads the trees, shows the plan and writes it as one step.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from lockyard.artifacts.request import ReleaseRequest, is_hand_written
from lockyard.artifacts.template import TemplatePlan, plan_template
from lockyard.artifacts.typeplan import Row, TypePlan, plan_type
from lockyard.distribution import Line
from lockyard.errors import ConfigError, VersionExistsError
from lockyard.tree import File, Tree
from lockyard.version import Bump, Version, release_dir

SOURCE_VERSION = "source-version.txt"

_COPIED_RE = re.compile(r"patch_.*")
_GENERATED_RE = re.compile(
    r"[^/]+\.(?:env\.in|env\.out|lock\.json|conda-lock\.yml|locked_env\.in)|layers\.json|source-version\.txt"
    r"|CHANGELOG-[^/]+\.md|RELEASE\.md|RELEASE-NOTE\.md"
)
_LOCK_RE = re.compile(
    r"(?P<type>[^/.]+)\.(?:[^/]+\.)?(?:env\.out|lock\.json|conda-lock\.yml|locked_env\.in)|layers\.json"
    r"|CHANGELOG-(?P<text>[^/]+)\.md|RELEASE\.md|RELEASE-NOTE\.md"
)
_TYPE_RE = re.compile(r"([a-z0-9]+(?:[-_][a-z0-9]+)*)\.env\.in")
_GLOB_RE = re.compile(r"[*?[]")


@dataclass(frozen=True, kw_only=True)
class ReleasePlan:
    """What a release will be: its files, what survives of the old directory, and what the reviewer should know.

    `tree` holds the files to write, `kept` the hand-written files and nested pre-releases that live on, `replaced` the
    generated files of the old directory that go. `template` names a template directory to make first, if any.
    """

    base: Version
    version: Version
    bump: Bump
    tree: Tree
    types: Mapping[str, tuple[Row, ...]]
    kept: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    template: TemplatePlan
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def directory(self) -> str:
        """The release directory, relative to the root."""
        return str(release_dir(self.version))


def plan_release(request: ReleaseRequest, *, force: bool = False, keep_lock: bool = False) -> ReleasePlan:
    """Plan the release; nothing is read or written.

    With `keep_lock` the lock of a release that is made again lives on, and the texts about it: `lock --check` tells whether
    it still belongs to the inputs.

    Raises:
        VersionExistsError: the target holds generated files and `force` is off.
        ConfigError: an input is missing or does not parse; file and line are named.

    """
    types = {name: plan_type(request, name, variant) for name, variant in request.line.variants.items()}
    template = plan_template(request, {name: item.packages for name, item in types.items()})
    tree = _release_tree(request, template, types)
    kept = tuple(
        path for path in request.target_tree
        if _survives(path, tree) or (keep_lock and path not in tree and _is_of_lock(path, request.line))
    )  # fmt: skip
    replaced = tuple(path for path in request.target_tree if path not in kept)
    if (request.exists or replaced) and not force:
        raise _exists(request, replaced)
    notes = [note for item in types.values() for note in item.notes]
    notes += [*template.notes, *_notes(request, tree, kept, types)]
    return ReleasePlan(
        base=request.base,
        version=request.version,
        bump=request.bump,
        tree=Tree({path: file for path, file in tree.items() if path not in kept}),
        types={name: item.rows for name, item in types.items()},
        kept=tuple(sorted({*kept, *request.nested})),
        replaced=tuple(path for path in replaced if path not in tree),
        template=template,
        notes=tuple(dict.fromkeys(notes)),
        warnings=tuple(dict.fromkeys(warning for item in types.values() for warning in item.warnings)),
    )


def _notes(request: ReleaseRequest, tree: Tree, kept: tuple[str, ...], types: Mapping[str, TypePlan]) -> Iterator[str]:
    for path, old in request.target_tree.items():
        if path in tree and tree[path] != old and not _GENERATED_RE.fullmatch(path):
            if path in kept:
                yield f"{request.version} keeps its own {path}; the base's is different"
            else:
                yield f"{path} is replaced; the old one was different"
    for path in request.base_tree:
        match = _TYPE_RE.fullmatch(path)
        if match and match[1] not in types:
            yield f"{match[1]}: an image type of {request.base}, not of {request.line_source}; its files are left out"
    names = {row.name for item in types.values() for row in item.rows}
    for name in request.line.policies:
        if not _GLOB_RE.search(name) and name not in names and name != "python":
            yield f"{request.line_source}: policies: no image type has a package {name!r}"


def _release_tree(request: ReleaseRequest, template: TemplatePlan, types: Mapping[str, TypePlan]) -> Tree:
    generated = {f"{name}.env.in": item.env_in for name, item in types.items()}
    # No newline: as adopted distributions have it, so that a file equals its version.
    generated[SOURCE_VERSION] = File.text(str(request.base))
    for path, source in (
        *((path, f"the template {template.source}") for path in template.files),
        *((path, f"{request.line_source}: assets") for path in request.assets),
    ):
        if path in generated or _GENERATED_RE.fullmatch(path):
            raise ConfigError(f"{source} holds {path}, which is generated in every release")
    copied = {path: file for path, file in request.base_tree.items() if _is_copied(path, request.line)}
    return Tree({**template.files, **request.assets, **copied, **generated})


def _is_copied(path: str, line: Line) -> bool:
    names = {f"{name}.{end}" for name in line.types for end in ("pinned_env.in", "arg_based_env.in")}
    return path in names or _COPIED_RE.fullmatch(path) is not None


def _survives(path: str, tree: Tree) -> bool:
    """Tell whether a file of the old directory lives on: hand-written, or not one that commands make."""
    return is_hand_written(path) or not (path in tree or _GENERATED_RE.fullmatch(path) or _collides(path, tree))


def _is_of_lock(path: str, line: Line) -> bool:
    """Tell whether a file is a lock, or written from one, of the line's image types."""
    match = _LOCK_RE.fullmatch(path)
    return match is not None and (match["type"] or match["text"] or line.types[0]) in line.types


def _collides(path: str, tree: Tree) -> bool:
    """Tell whether a file stands where the new tree needs a directory, or the other way round."""
    parents = {str(parent) for parent in PurePosixPath(path).parents}
    return any(other in parents or other.startswith(f"{path}/") for other in tree)


def _exists(request: ReleaseRequest, replaced: tuple[str, ...]) -> VersionExistsError:
    place = release_dir(request.version)
    shown = ", ".join(replaced[:5]) + (f" and {len(replaced) - 5} more" if len(replaced) > 5 else "")
    what = f"{request.version} exists" if request.exists else f"{place} holds generated files"
    return VersionExistsError(
        f"{what} ({place})" if request.exists else what,
        hint="--force replaces its generated files and keeps the hand-written ones",
        details=[f"generated: {shown}"] if shown else [],
    )
