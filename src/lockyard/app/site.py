"""The use case of `site`: read the catalog, render, write as one step."""

from dataclasses import dataclass
from pathlib import Path

from lockyard import __version__, fs
from lockyard.app.facts import all_facts
from lockyard.app.reports import release_dates, with_index
from lockyard.app.workspace import Workspace
from lockyard.errors import ConfigError
from lockyard.ports import Toolbox
from lockyard.reports.model import ReleaseFacts
from lockyard.reports.site import Site, render_site
from lockyard.reports.support import support_lines
from lockyard.tree import File, Tree, check_relative
from lockyard.version import Version

ASSETS = Path(__file__).parents[1] / "reports" / "assets"
OUTPUT = "out/site"
_MARK = "data.js"


@dataclass(frozen=True, slots=True)
class SiteResult:
    """What was written: its first page, relative to the root, the number of pages, and the bytes of all files."""

    index: str
    pages: int
    size: int


def build_site(
    toolbox: Toolbox, workspace: Workspace, *, output: str | None = None, index: bool = False, offline: bool = False
) -> SiteResult:
    """Make the site of all locked releases below the root; `index` looks up what adopted locks do not say.

    Raises:
        ConfigError: there is no locked release, a file is malformed, or the output is a directory of something else.

    """
    directory = check_relative(output or OUTPUT)
    target = workspace.root / directory
    if target.exists() and any(target.iterdir()) and not (target / _MARK).is_file():
        raise ConfigError(f"{directory} is there and is no site", hint="give another --output, or empty it")
    site = read_site(toolbox, workspace, index=index, offline=offline)
    with toolbox.log.progress("rendering releases", len(site.releases), "releases") as advance:
        tree = render_site(site, fs.read_tree(ASSETS), advance)
    fs.sweep_old(target.parent)
    fs.write_tree(tree, target)
    pages = sum(name.endswith(".html") for name in tree)
    return SiteResult(f"{directory}/index.html", pages, sum(len(file.data) for file in tree.values()))


def read_site(toolbox: Toolbox, workspace: Workspace, *, index: bool = False, offline: bool = False) -> Site:
    """Read everything that a site shows.

    Raises:
        ConfigError: there is no locked release, or a file is malformed.

    """
    releases = all_facts(workspace)
    if not releases:
        raise ConfigError("there is no locked release yet", hint="lockyard lock VERSION")
    if index:
        releases = with_index(toolbox, workspace, releases, offline=offline)
    dates = release_dates(toolbox, workspace, releases)
    versions = [release.version for release in releases]
    boms, files = _boms(workspace, releases)
    return Site(
        title=workspace.distribution.title,
        tool=__version__,
        releases=releases,
        dates=dates,
        lines=support_lines(versions, dates, workspace.distribution.support, toolbox.clock.now().date()),
        boms=boms,
        files=files,
    )


def _boms(workspace: Workspace, releases: tuple[ReleaseFacts, ...]) -> tuple[dict[Version, tuple[str, ...]], Tree]:
    """Return the bills of materials that `generate-sbom` left."""
    boms: dict[Version, tuple[str, ...]] = {}
    files: dict[str, File] = {}
    for release in releases:
        found = fs.read_tree(workspace.root / "out" / str(release.version) / "sbom")
        if found:
            boms[release.version] = tuple(f"{release.version}/{name}" for name in found)
            files.update({f"boms/{release.version}/{name}": file for name, file in found.items()})
    return boms, Tree(files)
