"""Which template a release is made from, what it may say, and the directory that a new minor line gets. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lockyard.artifacts.request import ReleaseRequest
from lockyard.conda.lock import LockedPackage
from lockyard.errors import ConfigError
from lockyard.templates import SUFFIX, render
from lockyard.tree import File, Tree
from lockyard.version import release_dir

DOCKERFILE = "Dockerfile"
NOT_COPIED = frozenset({"Dockerfile.base", "bases.json", "variants.toml"})
"""Files of a template directory that belong to the line, not to a release."""

CONTEXT: Mapping[str, str] = {
    "version": "the new version, such as `1.4.2` or `1.4.2-beta.1`",
    "major": "its first number",
    "minor": "its second number",
    "patch": "its third number",
    "pre_release": "its pre-release identifier, such as `beta.1`; empty for a final version",
    "base_version": "the version that it is made from",
    "types": "the image types, in the order of `variants.toml`",
    "platforms": "image type → its platforms",
    "packages": (
        "image type → package name → what the base release's lock holds on the type's first platform: `version`, `build`,"
        " `build_number`, `channel`, `subdir`, `file_name`, `license`; the new release is not locked yet"
    ),
    "name": "the distribution's name",
    "title": "the distribution's title",
    "image": "the local repository name of its images",
    "prefix": "where the environment lives in the image",
}
"""The names that a template knows, with their meaning: docs/reference/templates.md."""


@dataclass(frozen=True, kw_only=True)
class TemplatePlan:
    """The template's files as the release gets them; `directory` and `tree` are a template directory to make first."""

    source: str
    files: Tree
    directory: str | None = None
    tree: Tree = field(default_factory=Tree)
    notes: tuple[str, ...] = ()


def plan_template(request: ReleaseRequest, packages: Mapping[str, Mapping[str, LockedPackage]]) -> TemplatePlan:
    """Choose the template and render its `.j2` files; `packages` are the base lock's, by image type and name.

    `template/vX/vX.Y`, else (for the first release of a minor line) the previous minor line's, which becomes this line's,
    else `template/vX`, else the base release's own `Dockerfile` and `dirs/`. A directory that holds nothing but the line's
    own files (`NOT_COPIED`) counts as absent.

    Raises:
        ConfigError: a template does not render, or two of its files become one.

    """
    version, sources = request.version, request.templates
    place = f"template/v{version.major}"
    own = f"{place}/v{version.major}.{version.minor}"
    values = _context(request, packages)
    if _copied(sources.minor):
        return TemplatePlan(source=own, files=_render(sources.minor, own, values))
    if sources.previous_minor and not sources.minor and version.patch == 0 and version.minor > 0:
        previous = f"{place}/v{version.major}.{version.minor - 1}"
        found = _without_own(request, values, previous)
        return TemplatePlan(
            source=found.source,
            files=found.files,
            directory=own,
            tree=sources.previous_minor,
            notes=(f"{own} is new, made from {previous}", *found.notes),
        )
    return _without_own(request, values, None)


def _without_own(request: ReleaseRequest, values: Mapping[str, object], previous: str | None) -> TemplatePlan:
    """Choose where the minor line has no template of its own; `previous` is the directory that becomes its own."""
    sources, place = request.templates, f"template/v{request.version.major}"
    if previous is not None and _copied(sources.previous_minor):
        return TemplatePlan(source=previous, files=_render(sources.previous_minor, previous, values))
    if _copied(sources.major):
        return TemplatePlan(source=place, files=_render(sources.major, place, values))
    base = {path: file for path, file in request.base_tree.items() if path == DOCKERFILE or path.startswith("dirs/")}
    absent = f"no template in {place}"
    if base:
        note = f"{absent}: Dockerfile and dirs/ are those of {request.base}"
        return TemplatePlan(source=str(release_dir(request.base)), files=Tree(base), notes=(note,))
    note = f"{absent}, and no Dockerfile in {request.base}: the image will be the environment"
    return TemplatePlan(source=place, files=Tree(), notes=(note,))


def _context(request: ReleaseRequest, packages: Mapping[str, Mapping[str, LockedPackage]]) -> dict[str, object]:
    version, distribution = request.version, request.distribution
    return {
        "version": str(version),
        "major": version.major,
        "minor": version.minor,
        "patch": version.patch,
        "pre_release": ".".join(version.pre),
        "base_version": str(request.base),
        "types": list(request.line.types),
        "platforms": {name: list(variant.platforms) for name, variant in request.line.variants.items()},
        "packages": packages,
        "name": distribution.name,
        "title": distribution.title,
        "image": distribution.image,
        "prefix": request.line.prefix,
    }


def _copied(tree: Tree) -> bool:
    """Tell whether a release gets anything from a template directory."""
    return any(path not in NOT_COPIED for path in tree)


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
