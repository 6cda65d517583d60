"""Sizes and budgets, staleness, dependencies, why, support, scans."""

import datetime as dt
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockyard.conda.bounds import BoundsPolicy
from lockyard.conda.lock import LockedPackage
from lockyard.distribution import SupportPolicy
from lockyard.errors import ConfigError
from lockyard.ports.solving import IndexRecord
from lockyard.reports import dependencies, scan, sizes, staleness, support
from lockyard.reports.changes import compare
from lockyard.reports.graph import Graph, spec_name
from lockyard.reports.model import by_hash, completed
from lockyard.version import Version
from unit.reports.test_changes import NEW, OLD, facts, package

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
V = Version.parse


def days(number: int) -> int:
    """Milliseconds since the epoch, so many days before NOW."""
    return int((NOW - dt.timedelta(days=number)).timestamp() * 1000)


# ── sizes


def weighed(old: Mapping[str, int | None], new: Mapping[str, int | None]) -> dict[str, sizes.TypeSizes]:
    return sizes.type_sizes(compare(facts("1.0.0", old), facts("1.0.1", new)), {"cpu": (100, 120)})


def test_the_budget_is_for_new_packages() -> None:
    base = {"a-1-h0": 1000}
    assert sizes.over_budget(weighed(base, {"a-2-h0": 5000}), 5) == ()
    assert sizes.over_budget(weighed(base, {"a-1-h0": 1000, "b-1-h0": 50}), 5) == ()
    (line,) = sizes.over_budget(weighed(base, {"a-1-h0": 1000, "b-1-h0": 40, "c-1-h0": 11}), 5)
    assert line == "cpu: 2 new packages weigh 51 B, 5.1 % of the base (budget 5 %); the biggest is b"


def test_a_budget_that_cannot_be_checked_is_not_met() -> None:
    (line,) = sizes.over_budget(weighed({"a-1-h0": 1000}, {"a-1-h0": 1000, "b-1-h0": None}), 5)
    assert "unknown" in line
    assert sizes.over_budget(weighed({"a-1-h0": None}, {"a-2-h0": None}), 5) == (), "nothing is new"


def test_size_report() -> None:
    found = weighed(dict(OLD), dict(NEW))
    text = sizes.render_markdown("1.0.0", "1.0.1", found, everything=True)
    assert "| cpu | packages | 5 MB | 7 MB | +2 MB | +40.0 % |" in text
    assert "| cpu | image | 100 B | 120 B | +20 B | +20.0 % |" in text
    assert "| cpu | new packages |  | 900 B |  | +0.0 % |" in text
    assert text.index("| numpy | 1.26.4 → 2.0.0 | major | +2 MB |") < text.index("| polars | 1.0 | new | +900 B |")
    assert "## cpu: all packages" in text
    value = json.loads(sizes.render_json("1.0.0", "1.0.1", found, {"cpu": {"a": 1}}))["types"]["cpu"]
    assert (value["new_packages"], value["image"], value["packages"]) == (900, {"base": 100, "target": 120}, {"a": 1})


def test_only_twenty_are_on_top() -> None:
    old = {f"p{number}-1-h0": 10 for number in range(50)}
    new = {f"p{number}-2-h0": 10 + number for number in range(50)}
    top = weighed(old, new)["cpu"].top
    assert [change.name for change in top] == [f"p{number}" for number in range(49, 29, -1)]


# ── staleness


def record(version: str, age: int | None = 10, **fields: Any) -> IndexRecord:
    return IndexRecord(name="x", version=version, build="h0", timestamp=None if age is None else days(age), **fields)


def stale(
    installed: str, versions: dict[str, int | None], release: str = "1.0.1", **policies: Any
) -> staleness.Staleness:
    item = replace(package(f"x-{installed}-h0"), timestamp=days(100))
    records = {"x": [record(version, age) for version, age in versions.items()]}
    (found,) = staleness.staleness([item], records, V(release), BoundsPolicy(policies), direct=["x"], now=NOW)
    return found


@pytest.mark.parametrize(
    ("release", "allowed"), [("1.0.1", "1.2.9"), ("1.1.0", "1.10.0"), ("2.0.0", "3.0.0"), ("1.0.1-beta.1", "1.2.9")]
)
def test_what_a_kind_of_release_allows(release: str, allowed: str) -> None:
    versions: dict[str, int | None] = {"1.2.3": 90, "1.2.9": 50, "1.10.0": 20, "3.0.0": 10, "3.1.0rc1": 1}
    found = stale("1.2.3", versions, release)
    assert (found.allowed, found.newest, found.is_stale, found.age) == (allowed, "3.0.0", True, 100)
    assert found.behind == 50


def test_a_pinned_package_is_never_stale() -> None:
    found = stale("1.2.3", {"1.2.3": 90, "1.2.9": 50}, x="pinned")
    assert (found.allowed, found.newest, found.is_stale) == ("1.2.3", "1.2.9", False)


def test_what_is_not_in_the_index_is_unknown() -> None:
    found = stale("1.2.3", {})
    assert (found.allowed, found.newest, found.is_stale, found.behind) == (None, None, False, None)
    assert "1 are not in the channel's index" in staleness.render_markdown(V("1.0.1"), {"cpu": [found]})


def test_pre_releases_count_only_for_pre_releases() -> None:
    assert stale("1.2.3rc1", {"1.2.3rc2": 1}).allowed == "1.2.3rc2"
    assert stale("1.2.3", {"1.2.3": 9, "1.2.4rc1": 1}).allowed == "1.2.3"


def test_the_age_of_an_adopted_package_comes_from_the_index_by_hash() -> None:
    item = replace(package("x-1-h0"), md5="a" * 32, timestamp=None)
    records = {"x": [record("1", 30, md5="a" * 32), record("1", 5, md5="b" * 32)]}
    (found,) = staleness.staleness([item], records, V("1.0.1"), BoundsPolicy(), direct=(), now=NOW)
    assert found.age == 30


def test_stale_first_longest_behind_on_top() -> None:
    items = [replace(package(f"{name}-1.0.0-h0"), timestamp=days(100)) for name in "abc"]
    records = {"a": [record("1.0.0")], "b": [record("1.0.1", 5)], "c": [record("1.0.1", 50)]}
    found = staleness.staleness(items, records, V("1.0.1"), BoundsPolicy(), direct=(), now=NOW, downloads={"b": 12000})
    assert [item.name for item in found] == ["c", "b", "a"]
    text = staleness.render_markdown(V("1.0.1"), {"cpu": found})
    assert "| b | 1.0.0 | 1.0.1 | 1.0.1 | patch | 100 | 5 | 12,000 |" in text
    assert "2 of 3 packages could be newer" in text
    assert json.loads(staleness.render_json(V("1.0.1"), {"cpu": found}))["types"]["cpu"][0]["behind_days"] == 50


@pytest.mark.parametrize("text", ['{"a": 5, "b": 1}', "# c\na 5\nb\t1\n", "a,5\nb, 1"])
def test_download_counts(text: str) -> None:
    assert staleness.parse_downloads(text, "f") == {"a": 5, "b": 1}


@pytest.mark.parametrize("text", ['{"a": -1}', '{"a": "x"}', "{", "a five", "a 1 2"])
def test_malformed_download_counts(text: str) -> None:
    with pytest.raises(ConfigError, match="f"):
        staleness.parse_downloads(text, "f")


# ── dependencies and why


def needs(name: str, *depends: str, size: int | None = 10) -> LockedPackage:
    return replace(package(f"{name}-1-h0", size), depends=depends)


BASE = (needs("python"), needs("numpy", "python >=3"))
TARGET = (
    *BASE, needs("pandas", "numpy >=1", "dateutil", "pytz >=2"), needs("dateutil", "six"), needs("six"), needs("pytz"),
    needs("polars", "six >=1"),
)  # fmt: skip


def test_what_new_packages_bring() -> None:
    pandas, polars = dependencies.brought(BASE, TARGET, ["pandas", "polars", "gone"])
    assert [(depth, item.name) for depth, item in pandas.tree] == [
        (0, "pandas"), (1, "dateutil"), (2, "six"), (1, "pytz"),
    ]  # fmt: skip
    assert (pandas.amount.exact, pandas.alone.exact) == (40, 30), "six would come with polars, too"
    assert (polars.amount.exact, polars.alone.exact) == (20, 10)
    text = dependencies.render_markdown("1.0.0", "1.0.1", {"cpu": [pandas, polars], "gpu": []})
    assert (
        "- **pandas** brings 4 packages, 40 B (30 B by it alone)\n  - pandas 1, 10 B\n    - dateutil 1, 10 B\n" in text
    )
    assert "## gpu\n\nNo new direct package." in text
    value = json.loads(dependencies.render_json("1.0.0", "1.0.1", {"cpu": [polars]}))
    assert value["types"]["cpu"]["polars"] == {"bytes": 20, "bytes_alone": 10, "packages": {"polars": 10, "six": 10}}


def test_cycles_end() -> None:
    loop = (needs("a", "b"), needs("b", "a", "b"))
    (found,) = dependencies.brought((), loop, ["a"])
    assert [item.name for _, item in found.tree] == ["a", "b"]


def test_why() -> None:
    found = dependencies.why(TARGET, "six", ["pandas", "polars"])
    assert found is not None
    assert found.required_by == (("dateutil", "six"), ("polars", "six >=1"))
    assert found.paths == (("polars", "six"), ("pandas", "dateutil", "six"))
    assert dependencies.render_why("1.0.1", {"cpu": found, "gpu": None}, "six") == (
        "cpu 1.0.1: six 1, indirect\n"
        "  required by dateutil  six\n  required by polars    six >=1\n"
        "  polars -> six\n  pandas -> dateutil -> six\n"
        "gpu 1.0.1: six is not there\n"
    )
    value = json.loads(dependencies.why_json("1.0.1", {"cpu": found, "gpu": None}, "six"))
    assert value["types"]["gpu"] is None
    assert value["types"]["cpu"]["paths"][0] == ["polars", "six"]


def test_why_of_an_adopted_release_is_unknown() -> None:
    found = dependencies.why([package("six-1-h0")], "six", [])
    assert "who requires it is unknown" in dependencies.render_why("1.0.1", {"cpu": found}, "six")


def test_names_in_dependencies() -> None:
    texts = ["numpy >=1", "Numpy", "c::numpy", "numpy[version='1']", "numpy=1.2"]
    assert {spec_name(text) for text in texts} == {"numpy"}


EDGES = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=20)


@settings(max_examples=60)
@given(EDGES, st.sampled_from("abcdef"))
def test_paths_are_real_and_end_where_they_should(edges: list[tuple[str, str]], name: str) -> None:
    graph = Graph.of(needs(item, *(b for a, b in edges if a == item)) for item in "abcdef")
    paths = graph.paths_to(name, "abcdef")
    assert {path[0] for path in paths} == {item for item in "abcdef" if name in graph.closure([item])}
    for path in paths:
        assert path[-1] == name
        assert all(b in graph.requires[a] for a, b in itertools.pairwise(path))


def test_an_index_completes_adopted_locks_by_hash_alone() -> None:
    adopted = replace(package("x-1-h0", None), md5="a" * 32)
    lock = facts("1.0.0", {}).types["cpu"].lock
    lock = replace(lock, platforms={"linux-64": (adopted,)})
    wrong, right = record("1", md5="b" * 32, size=5), record("1", md5="a" * 32, size=7, license="MIT")
    assert completed(lock, by_hash([wrong])) == lock
    assert completed(lock, by_hash([wrong, right])).packages()[0].size == 7


# ── support

DATES = {V("1.0.0"): dt.date(2025, 1, 31), V("1.1.0"): dt.date(2025, 8, 31), V("2.0.0"): dt.date(2026, 5, 1)}


def lines(policy: SupportPolicy, *versions: str) -> dict[str, support.LineSupport]:
    found = support.support_lines([V(item) for item in versions], DATES, policy, NOW.date())
    return {line.line: line for line in found}


def test_lines_end_after_their_months() -> None:
    found = lines(SupportPolicy(major=12, minor=6), "1.0.0", "1.0.1", "1.1.0", "2.0.0", "2.1.0-beta.1")
    assert list(found) == ["2", "2.1", "2.0", "1", "1.1", "1.0"]
    assert (found["1.0"].until, found["1.0"].state) == (dt.date(2025, 7, 31), "ended")
    assert found["1.1"].until == dt.date(2026, 2, 28)
    assert found["1"].until == dt.date(2026, 2, 28), "no earlier than its last minor line"
    assert (found["2.0"].until, found["2.0"].state) == (dt.date(2026, 11, 1), "supported")
    assert found["2.1"].state == "pre-release"
    assert (str(found["1"].latest), found["1"].releases) == ("1.1.0", 3)


def test_a_stated_day_counts_and_an_unknown_one_is_not_invented() -> None:
    policy = SupportPolicy(minor=6, released={"3.0": dt.date(2026, 1, 1)})
    found = lines(policy, "3.0.0", "4.0.0")
    assert found["3.0"].until == dt.date(2026, 7, 1)
    assert (found["4.0"].until, found["4.0"].state) == (None, "unknown")
    assert found["4"].state == "supported", "no months are configured for major lines"


def test_support_report() -> None:
    policy = SupportPolicy(major=12, minor=6)
    items = tuple(lines(policy, "1.0.0", "2.0.0").values())
    text = support.render_markdown(items, "Small", policy)
    assert "| 2.0 | 2.0.0 | 2026-05-01 | 2026-11-01 | supported |" in text
    assert json.loads(support.render_json(items))["lines"][0]["line"] == "2"


# ── scans

TRIVY = {"Results": [{"Vulnerabilities": [
    {"VulnerabilityID": "CVE-1", "PkgName": "openssl", "InstalledVersion": "3.0", "FixedVersion": "3.1", "Severity": "HIGH"},
    {"VulnerabilityID": "CVE-2", "PkgName": "zlib", "InstalledVersion": "1.2", "Severity": "LOW"},
]}, {"Target": "nothing"}]}  # fmt: skip
GRYPE = {"matches": [
    {"vulnerability": {"id": "CVE-1", "severity": "High", "fix": {"versions": ["3.1"], "state": "fixed"}},
     "artifact": {"name": "openssl", "version": "3.0"}},
    {"vulnerability": {"id": "CVE-2", "severity": "Low", "fix": {"versions": []}},
     "artifact": {"name": "zlib", "version": "1.2"}},
]}  # fmt: skip
ECR = {"imageScanFindings": {"findings": [
    {"name": "CVE-1", "severity": "HIGH", "attributes": [
        {"key": "package_name", "value": "openssl"}, {"key": "package_version", "value": "3.0"}]},
], "enhancedFindings": [
    {"severity": "LOW", "packageVulnerabilityDetails": {"vulnerabilityId": "CVE-2", "vulnerablePackages": [
        {"name": "zlib", "version": "1.2", "fixedInVersion": "NotAvailable"}]}},
]}}  # fmt: skip


@pytest.mark.parametrize("report", [TRIVY, GRYPE, ECR])
def test_reports_of_all_scanners(report: object) -> None:
    found = scan.parse_report(json.dumps(report), "f")
    assert [(item.id, item.severity, item.package, item.installed) for item in found] == [
        ("CVE-1", "high", "openssl", "3.0"), ("CVE-2", "low", "zlib", "1.2"),
    ]  # fmt: skip
    assert found[0].fixed == ("" if report is ECR else "3.1")
    assert found[1].fixed == ""


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"matches": [{}]}', '{"Results": [{"Vulnerabilities": [1]}]}'])
def test_malformed_reports(text: str) -> None:
    with pytest.raises(ConfigError, match="f: "):
        scan.parse_report(text, "f")


def test_a_clean_image() -> None:
    assert scan.parse_report('{"ArtifactName": "a", "SchemaVersion": 2}', "f") == ()
    assert scan.render_text(scan.judge({"cpu": ()}, (), "low", NOW.date())) == "no vulnerability found\n"


ALLOW = """
[[allow]]
id = "CVE-1"
reason = "not reachable"
expires = 2026-06-01
[[allow]]
id = "CVE-2"
package = "other"
reason = "x"
expires = 2026-12-31
[[allow]]
id = "CVE-9"
reason = "old"
expires = 2026-05-31
"""


def test_the_allow_list_holds_to_the_end_of_its_day() -> None:
    allowed = scan.parse_allow_list(ALLOW, "scan-allow.toml")
    reports = {name: scan.parse_report(json.dumps(TRIVY), "f") for name in ("cpu", "gpu")}
    found = scan.judge(reports, allowed, "low", NOW.date())
    assert [(item.id, item.types, item.allowed) for item in found.findings] == [
        ("CVE-2", ("cpu", "gpu"), None), ("CVE-1", ("cpu", "gpu"), "not reachable"),
    ]  # fmt: skip
    assert [item.id for item in found.blocking] == ["CVE-2"]
    assert [item.id for item in found.expired] == ["CVE-9"]
    assert [item.id for item in found.unused] == ["CVE-2"]
    later = scan.judge(reports, allowed, "high", NOW.date() + dt.timedelta(days=1))
    assert [item.id for item in later.blocking] == ["CVE-1"]
    assert "1 vulnerability: 1 low, 1 allowed" in scan.render_text(found)
    assert "| low | CVE-2 | zlib | 1.2 | - | cpu, gpu |  |" in scan.render_markdown(found, "1.0.1")
    assert json.loads(scan.render_json(found, "1.0.1", "low"))["blocking"] == 1


@pytest.mark.parametrize(
    "text", ["x", '[[allow]]\nid = "CVE-1"', '[[allow]]\nid = "a"\nreason = ""\nexpires = 2026-01-01', "[other]\na = 1"]
)
def test_malformed_allow_lists(text: str) -> None:
    with pytest.raises(ConfigError, match=r"scan-allow\.toml"):
        scan.parse_allow_list(text, "scan-allow.toml")
