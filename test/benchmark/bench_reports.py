"""The reports on 164 real releases of up to 952 packages. Goals: diff 0.3 s, all reports of one release 1 s, the site 15 s."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lockyard.app import reports, site, texts
from lockyard.app.workspace import open_workspace
from lockyard.cli.output import ConsoleLog
from lockyard.cli.root import make_toolbox
from lockyard.conda import formats
from lockyard.ports import Toolbox
from lockyard.reports import dependencies, diffs, sizes, staleness
from lockyard.reports.ref import ReleaseRef
from lockyard.version import Version
from support.bench import ROOT, Command, measure, report
from support.browser import open_browser
from support.require import missing
from support.upstream import upstream_distribution

BASE, TARGET = Version(2, 14, 9), Version(2, 14, 10)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upstream_distribution(tmp_path_factory.mktemp("upstream") / "upstream", channel=True)


@pytest.fixture(scope="module")
def toolbox(tmp_path_factory: pytest.TempPathFactory) -> Toolbox:
    cache = str(tmp_path_factory.mktemp("cache"))
    return make_toolbox(ConsoleLog(verbosity=-1), {"LOCKYARD_CACHE_DIR": cache})


def all_reports(root: Path, toolbox: Toolbox) -> None:
    """Every report of one release, from its files and the channel's index."""
    workspace = open_workspace(root)
    pair = reports.read_pair(toolbox, workspace, TARGET, BASE, index=True)
    sizes.render_markdown("a", "b", reports.size_report(toolbox, workspace, pair), everything=True)
    dependencies.render_markdown("a", "b", reports.dependency_report(pair))
    staleness.render_markdown(TARGET, reports.staleness_report(toolbox, workspace, pair.target))
    dependencies.render_why("b", reports.explain_package(pair.target, "openssl"), "openssl")
    texts.write_texts(workspace, TARGET, dry_run=True)


def cold(function: Callable[[], object]) -> Callable[[], object]:
    """Forget parsed lines first, as a fresh process does."""

    def run() -> None:
        formats._known_package.cache_clear()
        function()

    return run


def test_diff_and_reports(root: Path, toolbox: Toolbox, capsys: pytest.CaptureFixture[str]) -> None:
    def diff() -> None:
        found = reports.diff_releases(toolbox, open_workspace(root), ReleaseRef(BASE), ReleaseRef(TARGET))
        diffs.render_markdown(found)

    argv = [sys.executable, str(ROOT / "src/main.py"), "--root", str(root), "diff", str(BASE), str(TARGET)]
    all_reports(root, toolbox)  # unpacks the channel's index once
    timings = measure(
        {
            "lockyard --version": Command([*argv[:2], "--version"]),
            "diff, the command": Command(argv),
            "diff, in process": cold(diff),
            "all reports": cold(lambda: all_reports(root, toolbox)),
        },
        runs=5,
    )
    with capsys.disabled():
        print(report(f"{BASE} to {TARGET}, 856 + 946 packages (goals: diff 0.3 s, all reports 1 s)", timings))


def test_site(root: Path, toolbox: Toolbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = open_workspace(root)
    timings = measure(
        {
            "site": cold(lambda: site.build_site(toolbox, workspace)),
            "site --index": cold(lambda: site.build_site(toolbox, workspace, output="out/indexed", index=True)),
        },
        runs=2,
    )
    lines = [f"data.js: {(root / 'out/site/data.js').stat().st_size:,} bytes (goal 3,000,000)"]
    if missing("chromium") is None:
        with open_browser(tmp_path / "profile") as browser:
            browser.open(root / "out/site/packages.html")
            search = browser.run(
                "const t = performance.now(); for (const w of ['a', 'py', 'numpy 1.26', 'lib'])"
                " { q.value = w; q.dispatchEvent(new Event('input')); } return (performance.now() - t) / 4"
            )
            browser.open(root / "out/site/compare.html")
            compare = browser.run(
                "const t = performance.now(); from.value = 0; from.dispatchEvent(new Event('change'));"
                " return performance.now() - t"
            )
        lines.append(f"in the browser: search {search:.0f} ms, compare {compare:.0f} ms (goal 100)")
    with capsys.disabled():
        print(report("site of 164 releases (goal 15 s)", timings, *lines))
