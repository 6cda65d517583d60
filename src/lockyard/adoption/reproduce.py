"""Whether the rules of `create` give the specs that an existing release has, release by release. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from lockyard.artifacts.request import ReleaseRequest, TemplateSources
from lockyard.artifacts.typeplan import plan_type
from lockyard.distribution import Distribution, Line
from lockyard.errors import ConfigError
from lockyard.tree import Tree
from lockyard.version import Bump, Version, bump


@dataclass(frozen=True, slots=True)
class Reproduced:
    """One spec file: how many of its lines differ from what `create` would write; `problem` says why nothing is written."""

    version: Version
    base: Version
    image_type: str
    differing: int
    problem: str = ""

    @property
    def same(self) -> bool:
        """Whether it is line for line what `create` would write."""
        return not self.differing and not self.problem


def bump_between(base: Version, target: Version) -> Bump | None:
    """Return the bump that leads from `base` to `target`, `None` when none does.

    >>> bump_between(Version.parse("1.4.2"), Version.parse("1.5.0-beta"))
    <Bump.MINOR: 'minor'>
    """
    identifier = ".".join(target.pre) if target.pre and not base.pre else None
    for part in Bump:
        try:
            if bump(base, part, identifier) == target:
                return part
        except ConfigError:
            return None
    return None


def reproduce(
    base: Version,
    target: Version,
    part: Bump,
    *,
    line: Line,
    source: str,
    base_tree: Tree,
    target_tree: Tree,
    environ: Mapping[str, str],
) -> tuple[Reproduced, ...]:
    """Plan `target` from `base` again and compare each `env.in`, line for line and in order; `source` names the `variants.toml`."""
    request = ReleaseRequest(
        base=base,
        version=target,
        bump=part,
        distribution=Distribution(name="adopted"),
        line=line,
        line_source=source,
        base_tree=base_tree,
        target_tree=target_tree,
        templates=TemplateSources(),
        environ=environ,
    )
    found = []
    for name, variant in line.variants.items():
        path = f"{name}.env.in"
        if path not in target_tree:
            continue
        try:
            made = plan_type(request, name, variant).env_in.data.decode().splitlines()
        except ConfigError as error:
            found.append(Reproduced(target, base, name, 0, error.message))
            continue
        there = target_tree[path].data.decode(errors="replace").splitlines()
        found.append(Reproduced(target, base, name, _differing(made, there)))
    return tuple(found)


def _differing(made: list[str], there: list[str]) -> int:
    """Return how many lines one has and the other has not; at least 1 when only their order differs."""
    if made == there:
        return 0
    return len(set(made) ^ set(there)) or 1
