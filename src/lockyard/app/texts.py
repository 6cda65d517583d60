"""Use cases around the texts in release directories: write them, check that they are what would be written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lockyard import fs
from lockyard.app.facts import line_order
from lockyard.app.workspace import Workspace
from lockyard.errors import ConfigError, DriftError, LockyardError
from lockyard.ports import Toolbox
from lockyard.reports import notes
from lockyard.reports.model import ReleaseFacts, read_release
from lockyard.reports.textfiles import VERSION_NOTE
from lockyard.tree import File, Tree
from lockyard.version import Version, release_dir

KINDS = ("changelog", "notes", "note")
"""`CHANGELOG-{type}.md`, `RELEASE.md` and `RELEASE-NOTE.md`."""


@dataclass(frozen=True, slots=True)
class TextsResult:
    """What was (or would be) written, path relative to the root → text, and which of these differ from what was there."""

    texts: Mapping[str, str]
    written: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextsStatus:
    """What `--check` found; `passed_over` are adopted releases whose texts have an older format."""

    checked: tuple[Version, ...]
    drifted: tuple[str, ...]
    passed_over: tuple[Version, ...]


def write_texts(
    workspace: Workspace, version: Version, kinds: tuple[str, ...] = KINDS, *, dry_run: bool = False
) -> TextsResult:
    """Write a release's texts, each as one step; a file that is right already is not touched.

    Raises:
        ConfigError: the release or its base does not exist, or a file is malformed.
        StaleLockError: it has no lock.

    """
    wanted = _texts(workspace, version, kinds)
    place = workspace.release_path(version)
    differing = {name: file for name, file in wanted.items() if fs.read_file(place / name) != file.data}
    if differing and not dry_run:
        with workspace.lock():
            for name, file in differing.items():
                fs.atomic_write(place / name, file.data)
    directory = str(release_dir(version))
    return TextsResult(
        texts={f"{directory}/{name}": file.data.decode() for name, file in wanted.items()},
        written=tuple(f"{directory}/{name}" for name in differing),
    )


def write_texts_after(toolbox: Toolbox, workspace: Workspace, version: Version, *, only_again: bool = False) -> None:
    """Write all texts at the end of another command, which does not fail because of them.

    An adopted release keeps the texts that it came with; `only_again` renews texts and makes no first ones.
    """
    tree = workspace.release_tree(version)
    if not any(name.endswith(".lock.json") for name in tree) or (only_again and VERSION_NOTE not in tree):
        return
    try:
        result = write_texts(workspace, version)
    except LockyardError as error:
        toolbox.log.warning(f"the texts of {version} are not written: {error.message}")
        return
    for path in result.written:
        toolbox.log.detail(f"wrote {path}")


def check_texts(workspace: Workspace, versions: tuple[Version, ...], kinds: tuple[str, ...] = KINDS) -> TextsStatus:
    """Compare the texts of the named releases, of all when none is named, with what would be written.

    An adopted release keeps the texts that it came with, and is passed over unless it is named.
    """
    checked, drifted, passed = [], [], []
    for version in versions or workspace.versions():
        if not versions and _is_older(workspace.release_tree(version)):
            passed.append(version)
            continue
        wanted = _texts(workspace, version, kinds)
        place = workspace.release_path(version)
        found = [name for name, file in wanted.items() if fs.read_file(place / name) != file.data]
        checked.append(version)
        drifted += [f"{release_dir(version)}/{name}" for name in found]
    return TextsStatus(tuple(checked), tuple(drifted), tuple(passed))


def require_no_drift(status: TextsStatus, command: str) -> None:
    """Raise `DriftError` when a text is not what would be written."""
    if status.drifted:
        first, *others = status.drifted
        more = f" and {len(others)} more are" if others else " is"
        raise DriftError(
            f"{first}{more} not what `lockyard {command}` writes", hint=f"lockyard {command} VERSION", details=others
        )


def _texts(workspace: Workspace, version: Version, kinds: tuple[str, ...]) -> Tree:
    release, base = _facts(workspace, version)
    makers: dict[str, Callable[[], Tree]] = {
        "changelog": lambda: notes.changelogs(release, base),
        "notes": lambda: notes.release_notes(release),
        "note": lambda: notes.version_note(release, base, workspace.distribution),
    }
    files: dict[str, File] = {}
    for kind in kinds:
        files.update(makers[kind]())
    return Tree(files)


def _facts(workspace: Workspace, version: Version) -> tuple[ReleaseFacts, ReleaseFacts | None]:
    """Return a release and the one it was made from, by committed files alone."""
    order = line_order(workspace, version)
    release = read_release(workspace.existing_release(version), version, order=order)
    if release.source is None:
        return release, None
    try:
        tree = workspace.existing_release(release.source)
    except ConfigError as error:
        raise ConfigError(f"{release_dir(version)}/source-version.txt: {error.message}", hint=error.hint) from error
    return release, read_release(tree, release.source, order=line_order(workspace, release.source), partial=True)


def _is_older(tree: Tree) -> bool:
    """Whether a release is not locked yet, or was made before Lockyard and none of its texts is ours."""
    if any(name.endswith(".lock.json") for name in tree):
        return False
    return not any(name.endswith(".env.out") for name in tree) or not any(
        notes.MARK.encode() in file.data for name, file in tree.items() if "/" not in name and name.endswith(".md")
    )
