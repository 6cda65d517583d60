"""Which template a release is made from, and the directory that a new minor line gets. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lockyard.errors import ConfigError
from lockyard.templates import SUFFIX, render
from lockyard.tree import File, Tree
from lockyard.version import Version, release_dir

DOCKERFILE = "Dockerfile"
NOT_COPIED = frozenset({"Dockerfile.base", "bases.json", "variants.toml"})
"""Files of a template directory that belong to the line, not to a release."""


@dataclass(frozen=True, kw_only=True)
class TemplateSources:
    """The files below `template/vX/vX.Y`, below the previous minor line's, and below `template/vX` without minor lines."""

    minor: Tree = field(default_factory=Tree)
    previous_minor: Tree = field(default_factory=Tree)
    major: Tree = field(default_factory=Tree)


@dataclass(frozen=True, kw_only=True)
class TemplatePlan:
    """The template's files as the release gets them; `directory` and `tree` are a template directory to make first."""

    source: str
    files: Tree
    directory: str | None = None
    tree: Tree = field(default_factory=Tree)
    notes: tuple[str, ...] = ()


def plan_template(
    version: Version, sources: TemplateSources, base_tree: Tree, values: Mapping[str, object]
) -> TemplatePlan:
    """Choose the template, render its `.j2` files with `values`.

    `template/vX/vX.Y`, else (for the first release of a minor line) the previous minor line's, which becomes this line's,
    else `template/vX`, else the base release's own `Dockerfile` and `dirs/`.

    Raises:
        ConfigError: a template does not render, or two of its files become one.

    """
    place = f"template/v{version.major}"
    own = f"{place}/v{version.major}.{version.minor}"
    if sources.minor:
        return TemplatePlan(source=own, files=_render(sources.minor, own, values))
    if sources.previous_minor and version.patch == 0 and version.minor > 0:
        previous = f"{place}/v{version.major}.{version.minor - 1}"
        return TemplatePlan(
            source=previous,
            files=_render(sources.previous_minor, previous, values),
            directory=own,
            tree=sources.previous_minor,
            notes=(f"{own} is new, made from {previous}",),
        )
    major = Tree({path: file for path, file in sources.major.items() if path not in NOT_COPIED})
    if major:
        return TemplatePlan(source=place, files=_render(major, place, values))
    files = Tree({path: file for path, file in base_tree.items() if path == DOCKERFILE or path.startswith("dirs/")})
    if files:
        note = f"no template at {own} or {place}: Dockerfile and dirs/ are those of the base release"
        return TemplatePlan(source=str(release_dir(version)), files=files, notes=(note,))
    note = f"no template at {own} or {place}, and no Dockerfile in the base release: the image will be the environment"
    return TemplatePlan(source=place, files=Tree(), notes=(note,))


def _render(tree: Tree, place: str, values: Mapping[str, object]) -> Tree:
    files: dict[str, File] = {}
    for path, file in tree.items():
        if path in NOT_COPIED:
            continue
        target = path
        if path.endswith(SUFFIX) and not file.is_link:
            target, source = path.removesuffix(SUFFIX), f"{place}/{path}"
            try:
                text = file.data.decode()
            except UnicodeDecodeError as error:
                raise ConfigError(f"{source}: not UTF-8 text") from error
            file = File(render(text, values, source=source).encode(), file.mode)  # noqa: PLW2901 - the rendered form of the same file
        if target in files:
            raise ConfigError(f"{place}: {target} and {target}{SUFFIX} are both there", hint="remove one of them")
        files[target] = file
    return Tree(files)
