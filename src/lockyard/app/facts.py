"""Releases read for the reports: from the work tree or a git revision, with what is built and published of them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from lockyard import fs
from lockyard.app.images import BUILD
from lockyard.app.workspace import Workspace
from lockyard.checks.plan import FILE_NAME as TESTS
from lockyard.conda.lock import Lock
from lockyard.errors import ConfigError, LockyardError
from lockyard.gitobjects import GitObjects
from lockyard.oci.image import canonical_json
from lockyard.oci.values import Digest
from lockyard.ports import Toolbox
from lockyard.reports.model import ImageFacts, ReleaseFacts, built_image, read_json, read_release, types_of
from lockyard.reports.ref import ReleaseRef
from lockyard.suggest import nearest
from lockyard.tree import Tree
from lockyard.version import Version, release_dir

_READ = (".env.in", ".env.out", ".lock.json", "layers.json", "images.json", "source-version.txt")


def read_facts(
    toolbox: Toolbox, workspace: Workspace, ref: ReleaseRef, image_types: tuple[str, ...] = ()
) -> ReleaseFacts:
    """Read one release.

    Raises:
        ConfigError: there is no such release, revision or image type, or a file is malformed.
        StaleLockError: a type has no lock.

    """
    tree = _tree(toolbox, workspace, ref)
    order = line_order(workspace, ref.version)
    known = dict.fromkeys([*types_of(tree, order), *order])
    for name in image_types:
        if name not in known:
            raise ConfigError(
                f"unknown image type {name!r}; there are {', '.join(known)}", hint=nearest(name, list(known))
            )
    facts = read_release(tree, ref.version, label=str(ref), order=order, image_types=image_types)
    return facts if ref.revision else with_built(workspace, facts)


def line_order(workspace: Workspace, version: Version) -> tuple[str, ...]:
    """Return the image types of the line in file order; none where its configuration is not there."""
    return workspace.line(version).types if workspace.line_path(version).is_file() else ()


def with_built(workspace: Workspace, facts: ReleaseFacts) -> ReleaseFacts:
    """Return the release with the images that are built here from exactly its locks, where none is published."""
    types = {}
    for name, item in facts.types.items():
        built = {
            platform: image
            for platform in item.lock.platforms
            if platform not in item.images and (image := _built(workspace, facts.version, item.lock, platform))
        }
        types[name] = replace(item, images={**built, **item.images}) if built else item
    return replace(facts, types=types)


def lock_digest(lock: Lock, platform: str) -> str:
    """Return the digest that `build.json` records of the packages it was made from."""
    return str(Digest.of(canonical_json([[item.dist, item.sha256 or item.md5] for item in lock.packages(platform)])))


def _tree(toolbox: Toolbox, workspace: Workspace, ref: ReleaseRef) -> Tree:
    if ref.revision is None:
        return workspace.existing_release(ref.version)
    place = str(release_dir(ref.version))
    objects = GitObjects(workspace.root, toolbox.environ)
    tree = objects.read_tree(ref.revision, place, wanted=lambda path: "/" not in path and path.endswith(_READ))
    if not tree:
        raise ConfigError(
            f"there is no release {ref.version} ({place}) in git revision {ref.revision}",
            hint=f"lockyard diff {ref.version}@HEAD {ref.version}",
        )
    return tree


def _built(workspace: Workspace, version: Version, lock: Lock, platform: str) -> ImageFacts | None:
    """Return the built image, `None` when there is none or it was made from another lock."""
    place = workspace.out_dir(version, lock.image_type, platform)
    data = fs.read_file(place / BUILD)
    if data is None:
        return None
    try:
        build = read_json(data, str((place / BUILD).relative_to(workspace.root)))
        made_from: Mapping[str, object] = build.get("lock") or {}
        if made_from.get("digest") != lock_digest(lock, platform):
            return None
        return built_image(build, _tested(fs.read_file(place / TESTS), str(build.get("manifest_digest"))))
    except (LockyardError, AttributeError):
        return None  # what is malformed below out/ is no fact; `build` makes it again


def _tested(data: bytes | None, manifest: str) -> str:
    """Return the outcome of the image tests, empty when there is no record of exactly this image."""
    try:
        record = json.loads(data or b"")
        if record["manifest"] != manifest:
            return ""
        outcomes = [str(test["outcome"]) for test in record["tests"]]
    except (ValueError, KeyError, TypeError):
        return ""
    return ", ".join(f"{outcomes.count(word)} {word}" for word in ("passed", "failed", "skipped") if word in outcomes)


def all_facts(workspace: Workspace, versions: Iterable[Version] | None = None) -> tuple[ReleaseFacts, ...]:
    """Read every release that has locks, sorted; one without any (not locked yet) is passed over.

    Raises:
        ConfigError: a file is malformed.

    """
    found = []
    for version in workspace.versions() if versions is None else versions:
        tree = workspace.release_tree(version)
        if any(name.endswith((".lock.json", ".env.out")) for name in tree):
            facts = read_release(tree, version, order=line_order(workspace, version), partial=True)
            found.append(with_built(workspace, facts))
    return tuple(found)
