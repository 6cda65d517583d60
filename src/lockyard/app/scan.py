"""The use case of `scan`: findings from a registry or from a scanner's report, less what the distribution allows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lockyard import fs
from lockyard.app.images import tag_of
from lockyard.app.workspace import Workspace, decode
from lockyard.errors import ConfigError, RegistryError, ScanError
from lockyard.ports import Toolbox
from lockyard.reports.scan import ALLOW_LIST, Allowed, Finding, ScanResult, judge, parse_allow_list, parse_report
from lockyard.reports.text import count
from lockyard.version import Version


def scan_release(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    *,
    image_types: tuple[str, ...] = (),
    reports: Sequence[tuple[str | None, Path]] = (),
    repository: str | None = None,
    region: str | None = None,
    threshold: str = "high",
    allow_list: Path | None = None,
) -> ScanResult:
    """Read the findings of a release's images and judge them.

    `reports` are (image type, `None` where only one is meant; file); without any, the scan of `repository` (ECR) is read.

    Raises:
        ConfigError: a report or the allow-list is malformed, or it is not clear which image type a report is of.
        RegistryError: the registry has no finished scan.

    """
    types = tuple(workspace.variants(version, image_types))
    if bool(reports) == bool(repository):
        raise ConfigError(
            "where are the findings? Give the report of a scanner or an ECR repository",
            hint="--report TYPE=FILE for each image type, or --repository R",
        )
    found = (
        _from_files(types, reports)
        if not repository
        else _from_ecr(toolbox, workspace, version, types, repository, region)
    )
    allowed = _allowed(workspace, allow_list)
    return judge(found, allowed, threshold, toolbox.clock.now().date())


def require_none(result: ScanResult, threshold: str) -> None:
    """Raise `ScanError` when something is left at or above the threshold."""
    if result.blocking:
        raise ScanError(
            f"{count(len(result.blocking), 'vulnerability', 'vulnerabilities')} of severity {threshold} or above",
            hint=f"move the packages to the version that mends them, or allow one for a time in {ALLOW_LIST}",
        )


def _from_files(
    types: tuple[str, ...], reports: Sequence[tuple[str | None, Path]]
) -> Mapping[str, tuple[Finding, ...]]:
    found: dict[str, tuple[Finding, ...]] = {}
    for name, path in reports:
        if name is None and len(types) != 1:
            raise ConfigError(
                f"{path}: which image type is it of? There are {', '.join(types)}", hint=f"--report TYPE={path}"
            )
        if name is not None and name not in types:
            raise ConfigError(f"--report {name}={path}: there is no image type {name!r}; there are {', '.join(types)}")
        data = fs.read_file(path)
        if data is None:
            raise ConfigError(f"there is no file {path}")
        key = name or types[0]
        found[key] = (*found.get(key, ()), *parse_report(data, str(path)))
    missing = [name for name in types if name not in found]
    if missing:
        raise ConfigError(
            f"no report of {', '.join(missing)}: a release is scanned whole",
            hint=f"add --report {missing[0]}=FILE, or narrow it with --image-type",
        )
    return found


def _from_ecr(
    toolbox: Toolbox,
    workspace: Workspace,
    version: Version,
    types: tuple[str, ...],
    repository: str,
    region: str | None,
) -> Mapping[str, tuple[Finding, ...]]:
    uri = workspace.distribution.repository(repository).uri
    source = toolbox.scans()
    found = {}
    for name in types:
        tag = tag_of(workspace.line(version).variant(name), version, name)
        value = source.scan_findings(uri, tag, region=region)
        if value is None:
            raise RegistryError(f"{uri}:{tag} has no finished scan", hint="start one, or turn on scanning on push")
        found[name] = parse_report(value, f"{uri}:{tag}")
    return found


def _allowed(workspace: Workspace, path: Path | None) -> tuple[Allowed, ...]:
    chosen = path or workspace.root / ALLOW_LIST
    data = fs.read_file(chosen)
    if data is None:
        if path is not None:
            raise ConfigError(f"there is no allow-list {path}")
        return ()
    return parse_allow_list(decode(data, str(chosen)), str(chosen))
