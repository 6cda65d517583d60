"""A release as a plan of named steps: which version, which steps, and the journal that says which are done. Pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from packaging.version import Version

from lockyard.errors import ConfigError
from lockyard.pyrelease.bump import Identifier, Part, bump, is_final

Kind = Literal["pre", "final"]
SCHEMA = 1
STEPS = (
    "checks", "bump", "lock", "build", "dockerfiles", "changelog", "branch", "commit", "tag", "next", "distributions", "images",
    "publish-git", "publish-index", "publish-images",
)  # fmt: skip
PUBLISHING = frozenset(step for step in STEPS if step.startswith("publish-"))


@dataclass(frozen=True, kw_only=True)
class ReleasePlan:
    """What a release does. `base` is the commit that it begins from, `moment` its time (seconds since 1970, UTC).

    `asked` is the part and the identifier that were asked for, empty for none.

    `branch` is made for a final release, `next` is the development version that `start` (the branch it begins on) goes on
    with. `index` is where the distributions go, `None` for nowhere; `remote` where git pushes to, `None` for nowhere;
    `runtimes` says that there are Dockerfiles to generate, `images` that they are built; `image_targets` are
    repositories, none for those of `runtimes.yaml`.
    """

    kind: Kind
    name: str
    old: str
    new: str
    tag: str
    start: str
    base: str
    moment: int
    asked: str = ""
    branch: str | None = None
    next: str | None = None
    changelog: str | None = None
    runtimes: bool = False
    images: bool = False
    publish: bool = False
    index: str | None = None
    remote: str | None = None
    image_targets: tuple[str, ...] = ()

    @property
    def home(self) -> str:
        """The branch that the release commit is on, where the release ends."""
        return self.branch or self.start

    @property
    def subject(self) -> str:
        """The message of the release commit."""
        return f"Release {self.name} {self.new}"

    @property
    def next_subject(self) -> str:
        """The message of the commit after it."""
        return f"Back to development: {self.name} {self.next}"

    def steps(self) -> tuple[str, ...]:
        """Return the names of its steps, in order."""
        absent = {
            "dockerfiles": not self.runtimes, "images": not self.images, "changelog": self.changelog is None,
            "branch": self.branch is None, "next": self.next is None,
            "publish-git": self.remote is None, "publish-index": self.index is None, "publish-images": not self.images,
        }  # fmt: skip
        return tuple(step for step in STEPS if not absent.get(step, False) and (self.publish or step not in PUBLISHING))

    def describe(self, step: str) -> str:
        """Return what a step does, for people."""
        said = {
            "checks": "clean tree, branch, tag, copies of the version, the project's own checks",
            "bump": f"{self.old} -> {self.new} in every copy" if self.old != self.new else f"{self.new} is there",
            "lock": "requirements of each set, with hashes",
            "build": "sdist and wheel of the work tree, checked and tried",
            "dockerfiles": "the Dockerfiles of runtimes.yaml",
            "changelog": f"{self.changelog}: [Unreleased] becomes [{self.new}]",
            "branch": f"make {self.branch} and change to it",
            "commit": f'"{self.subject}" on {self.home}',
            "tag": f"{self.tag}, annotated, with the changelog's section",
            "next": f"{self.start} goes on with {self.next}; stay on {self.home}",
            "distributions": f"dist/ from {self.tag}",
            "images": "build and test the images of runtimes.yaml",
            "publish-git": f"push {', '.join(self.pushed())} to {self.remote}",
            "publish-index": f"upload to {self.index}",
            "publish-images": f"push the images that were tested to {', '.join(self.image_targets) or 'their registries'}",
        }
        return said[step]

    def pushed(self) -> tuple[str, ...]:
        """Return the names that git pushes."""
        branches = [self.start] if self.next is not None or self.branch is None else []
        return (*branches, *([self.branch] if self.branch else []), self.tag)


@dataclass(frozen=True, slots=True)
class Done:
    """What a finished step says; `files` are those that it wrote, `commit` the one that it made."""

    said: str
    files: tuple[str, ...] = ()
    commit: str = ""


@dataclass(frozen=True)
class Journal:
    """A release and what is done of it."""

    plan: ReleasePlan
    done: Mapping[str, Done] = field(default_factory=dict)

    @property
    def left(self) -> tuple[str, ...]:
        """The steps that are not done."""
        return tuple(step for step in self.plan.steps() if step not in self.done)

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the finished steps wrote."""
        return tuple(sorted({path for item in self.done.values() for path in item.files}))

    def record(self, step: str, done: Done) -> "Journal":
        """Return the journal with a finished step."""
        return replace(self, done={**self.done, step: done})


def format_journal(journal: Journal) -> bytes:
    """Return the journal as JSON."""
    done = {step: asdict(item) for step, item in journal.done.items()}
    return json.dumps({"schema": SCHEMA, "plan": asdict(journal.plan), "done": done}, indent=1).encode()


def parse_journal(data: bytes, *, source: str) -> Journal:
    """Parse a journal.

    Raises:
        ConfigError: it is not one, or of a newer Lockyard.

    """
    try:
        value: dict[str, Any] = json.loads(data)
        if value["schema"] > SCHEMA:
            raise ConfigError(f"{source} was written by a newer Lockyard", hint="upgrade Lockyard")
        done = {step: Done(item["said"], tuple(item["files"]), item["commit"]) for step, item in value["done"].items()}
        plan = {**value["plan"], "image_targets": tuple(value["plan"]["image_targets"])}
        return Journal(ReleasePlan(**plan), done)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{source} is damaged: {error}", hint="look at git log and git status, then remove it"
        ) from error


def release_version(
    version: Version, kind: Kind, *, part: Part | None, identifier: Identifier | None, is_tagged: bool
) -> Version:
    """Return the version of the next release. A version that no tag names yet is released as it is.

    Raises:
        ConfigError: it is not said which, or it would go back.

    """
    if kind == "final":
        return _final_version(version, part, identifier, is_tagged=is_tagged)
    if part is not None:
        return bump(version, part, identifier or "a")
    if version.pre is not None and version.dev is None and not is_tagged and identifier in {None, version.pre[0]}:
        return version
    if is_final(version):
        raise ConfigError(
            f"{version} is a final version: which release are the pre-releases for?",
            hint="--bump patch, minor or major, and --identifier a, b or rc",
        )
    return bump(version, "prerelease", identifier)


def _final_version(version: Version, part: Part | None, identifier: Identifier | None, *, is_tagged: bool) -> Version:
    if identifier is not None:
        raise ConfigError("a final release has no --identifier")
    if part is not None:
        return bump(version, part)
    if not is_final(version):
        return bump(version, "release")
    if is_tagged:
        raise ConfigError(f"{version} is released already: which one is next?", hint="--bump patch, minor or major")
    return version
