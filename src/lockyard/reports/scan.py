"""Vulnerabilities that scanners found: read from ECR, Trivy or Grype, less what a committed list allows for a time."""

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import pydantic

from lockyard.errors import ConfigError
from lockyard.reports.text import clean, columns, count, markdown_table
from lockyard.strict import Model, parse_toml

SEVERITIES = ("critical", "high", "medium", "low", "negligible", "unknown")
ALLOW_LIST = "scan-allow.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One vulnerability of one package; `types` are the image types that have it, `fixed` is empty when nothing is known.

    `allowed` is the reason of the allow-list, `None` when it does not name this finding.
    """

    id: str
    severity: str
    package: str
    installed: str
    fixed: str = ""
    types: tuple[str, ...] = ()
    allowed: str | None = None


class Allowed(Model):
    """One entry of the allow-list: it holds to the end of the day `expires`, for one package when one is named."""

    id: Annotated[str, pydantic.StringConstraints(min_length=1)]
    reason: Annotated[str, pydantic.StringConstraints(min_length=1)]
    expires: dt.date
    package: str | None = None

    def matches(self, finding: Finding) -> bool:
        """Whether the entry speaks of this finding."""
        return self.id == finding.id and self.package in {None, finding.package}


class AllowList(Model):
    """`scan-allow.toml`."""

    allow: tuple[Allowed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """What a scan left: `blocking` are at or above the threshold and not allowed; `expired` entries no longer count."""

    findings: tuple[Finding, ...]
    blocking: tuple[Finding, ...]
    expired: tuple[Allowed, ...]
    unused: tuple[Allowed, ...]


def parse_report(text: str | bytes, source: str) -> tuple[Finding, ...]:
    """Read the JSON of ECR (`describe-image-scan-findings`), Trivy or Grype; which one it is, its keys tell.

    Raises:
        ConfigError: it is none of them or malformed.

    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not JSON: {error}") from error
    readers: dict[str, Callable[[Any], Iterator[Finding]]] = {
        "imageScanFindings": _ecr,
        "matches": _grype,
        "Results": _trivy,
    }
    key = next((key for key in readers if isinstance(value, dict) and key in value), None)
    if key is None and isinstance(value, dict) and "ArtifactName" in value:
        return ()  # Trivy leaves Results out of an image with nothing in it
    if key is None:
        raise ConfigError(
            f"{source}: this is no report of ECR, Trivy or Grype",
            hint="trivy image --format json, grype --output json, aws ecr describe-image-scan-findings",
        )
    try:
        return tuple(dict.fromkeys(readers[key](value[key])))
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{source}: malformed at {error}") from error


def parse_allow_list(text: str, source: str) -> tuple[Allowed, ...]:
    """Read the allow-list.

    Raises:
        ConfigError: it is no TOML, or an entry lacks id, reason or expiry.

    """
    try:
        return AllowList.model_validate(parse_toml(text, source)).allow
    except pydantic.ValidationError as error:
        problems = [f"{source}: {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        first, *others = problems
        hint = 'an entry is [[allow]] with id = "CVE-…", reason = "…", expires = 2026-12-31'
        raise ConfigError(first, details=others, hint=hint) from error


def judge(
    reports: Mapping[str, Sequence[Finding]], allowed: Sequence[Allowed], threshold: str, today: dt.date
) -> ScanResult:
    """Join the findings of all image types, apply the allow-list, and say what is at or above the threshold."""
    valid = [entry for entry in allowed if entry.expires >= today]
    findings = []
    for finding in _joined(reports):
        entry = next((entry for entry in valid if entry.matches(finding)), None)
        findings.append(replace(finding, allowed=entry.reason) if entry else finding)
    findings.sort(key=lambda item: (item.allowed is not None, _rank(item.severity), item.package, item.id))
    limit = SEVERITIES.index(threshold)
    return ScanResult(
        findings=tuple(findings),
        blocking=tuple(item for item in findings if item.allowed is None and _rank(item.severity) <= limit),
        expired=tuple(entry for entry in allowed if entry not in valid),
        unused=tuple(entry for entry in valid if not any(entry.matches(item) for item in findings)),
    )


def render_text(result: ScanResult) -> str:
    """Return text for a terminal, one line a finding."""
    if not result.findings:
        return "no vulnerability found\n"
    rows = [_cells(item) for item in result.findings]
    lines = ["  ".join(row).rstrip() for row in columns([_HEADER, *([clean(text) for text in row] for row in rows)])]
    return "\n".join([*lines, _totals(result)]) + "\n"


def render_markdown(result: ScanResult, version: str) -> str:
    """Return Markdown."""
    lines = [f"# Vulnerabilities: {version}", "", f"{_totals(result).capitalize()}.", ""]
    lines += markdown_table(_HEADER, map(_cells, result.findings)) if result.findings else []
    return "\n".join(lines).rstrip() + "\n"


def render_json(result: ScanResult, version: str, threshold: str) -> str:
    """Return JSON."""
    value = {
        "version": version,
        "threshold": threshold,
        "blocking": len(result.blocking),
        "findings": [
            {
                "id": item.id, "severity": item.severity, "package": item.package, "installed": item.installed,
                "fixed_in": item.fixed or None, "types": list(item.types), "allowed": item.allowed,
            }
            for item in result.findings
        ],
        "expired": [entry.id for entry in result.expired],
        "unused": [entry.id for entry in result.unused],
    }  # fmt: skip
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


_HEADER = ["severity", "id", "package", "installed", "fixed in", "types", "allowed because"]


def _cells(item: Finding) -> list[str]:
    return [
        item.severity, item.id, item.package, item.installed, item.fixed or "-", ", ".join(item.types), item.allowed or "",
    ]  # fmt: skip


def _totals(result: ScanResult) -> str:
    found = [item.severity for item in result.findings if item.allowed is None]
    parts = [f"{found.count(name)} {name}" for name in SEVERITIES if name in found]
    allowed = sum(item.allowed is not None for item in result.findings)
    text = ": ".join(filter(None, (count(len(found), "vulnerability", "vulnerabilities"), ", ".join(parts))))
    return f"{text}, {allowed} allowed" if allowed else text


def _joined(reports: Mapping[str, Sequence[Finding]]) -> Iterator[Finding]:
    """Yield each finding once, with all image types that have it."""
    types: dict[Finding, list[str]] = {}
    for name, findings in reports.items():
        for finding in findings:
            types.setdefault(finding, []).append(name)
    for finding, names in types.items():
        yield replace(finding, types=tuple(dict.fromkeys(names)))


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity)


def _severity(text: object) -> str:
    word = str(text or "").lower()
    word = {"informational": "negligible", "undefined": "unknown", "untriaged": "unknown", "none": "negligible"}.get(
        word, word
    )
    return word if word in SEVERITIES else "unknown"


def _trivy(results: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    for result in results or ():
        for item in result.get("Vulnerabilities") or ():
            yield Finding(
                id=str(item["VulnerabilityID"]),
                severity=_severity(item.get("Severity")),
                package=str(item["PkgName"]),
                installed=str(item.get("InstalledVersion") or ""),
                fixed=str(item.get("FixedVersion") or ""),
            )


def _grype(matches: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    for match in matches or ():
        problem, artifact = match["vulnerability"], match["artifact"]
        fix = problem.get("fix") or {}
        yield Finding(
            id=str(problem["id"]),
            severity=_severity(problem.get("severity")),
            package=str(artifact["name"]),
            installed=str(artifact.get("version") or ""),
            fixed=", ".join(map(str, fix.get("versions") or ())),
        )


def _ecr(scan: Mapping[str, Any]) -> Iterator[Finding]:
    for item in scan.get("findings") or ():
        values = {pair["key"]: pair.get("value") or "" for pair in item.get("attributes") or ()}
        yield Finding(
            id=str(item["name"]),
            severity=_severity(item.get("severity")),
            package=str(values.get("package_name") or "unknown"),
            installed=str(values.get("package_version") or ""),
        )
    for item in scan.get("enhancedFindings") or ():
        details = item.get("packageVulnerabilityDetails") or {}
        for package in details.get("vulnerablePackages") or [{"name": "unknown"}]:
            yield Finding(
                id=str(details.get("vulnerabilityId") or item.get("findingArn") or "unknown"),
                severity=_severity(item.get("severity")),
                package=str(package["name"]),
                installed=str(package.get("version") or ""),
                fixed=str(package.get("fixedInVersion") or "").replace("NotAvailable", ""),
            )
