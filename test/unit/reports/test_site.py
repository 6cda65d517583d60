"""The site as a tree: complete, repeatable, escaped, light; its data decode to what the locks say."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lockyard import fs
from lockyard.distribution import SupportPolicy
from lockyard.reports.charts import bar_chart, line_chart
from lockyard.reports.model import ReleaseFacts
from lockyard.reports.site import Site, render_site
from lockyard.reports.sitedata import VARIABLE, catalog_data, to_script
from lockyard.reports.support import support_lines
from lockyard.tree import Tree
from lockyard.version import Version
from unit.reports.test_changes import NEW, OLD, facts

ASSETS = Path(__file__).resolve().parents[3] / "src/lockyard/reports/assets"
HOSTILE = "</script><img src=x onerror=alert(1)>"


def site(*releases: ReleaseFacts, title: str = "Small", **dates: str) -> Site:
    days = {
        Version.parse(key.replace("_", ".").removeprefix("v")): dt.date.fromisoformat(day) for key, day in dates.items()
    }
    versions = [release.version for release in releases]
    lines = support_lines(versions, days, SupportPolicy(minor=6), dt.date(2026, 6, 1))
    return Site(title=title, tool="0.1", releases=releases, dates=days, lines=lines)


def render(found: Site) -> Tree:
    return render_site(found, fs.read_tree(ASSETS))


def example() -> Site:
    return site(
        facts("1.0.0", OLD, "numpy zlib"), facts("1.0.1", NEW, "numpy polars"), facts("1.1.0-beta.1", NEW, "numpy")
    )


def test_pages() -> None:
    tree = render(example())
    assert [name for name in tree if name.endswith(".html")] == [
        "compare.html", "index.html", "packages.html", "releases/1.0.0.html", "releases/1.0.1.html",
        "releases/1.1.0-beta.1.html",
    ]  # fmt: skip
    assert tree.digest == render(example()).digest, "the same releases give the same bytes"


def test_nothing_of_a_lock_is_markup() -> None:
    names = {f"{HOSTILE}-1-h0": 1, "numpy-1-h0": 1}
    tree = render(site(facts("1.0.0", {}), facts("1.0.1", names, HOSTILE), title=HOSTILE))
    pages = "".join(file.data.decode() for name, file in tree.items() if name.endswith(".html"))
    assert "<img" not in pages
    assert "&lt;img src=x" in pages
    assert "<script>" not in pages, "no script stands in a page: the policy would refuse it"


def test_a_release_page_says_what_changed() -> None:
    from dataclasses import replace

    base = facts("1.0.0", OLD, "numpy zlib")
    target = replace(facts("1.0.1", NEW, "numpy polars"), source=base.version)
    page = render(site(base, target, v1_0_1="2026-05-01"))["releases/1.0.1.html"].data.decode()
    assert '2026-05-01. Made from <a href="1.0.0.html">1.0.0</a>' in page
    assert '<th scope="row">numpy</th><td>1.26.4 → 2.0.0</td><td><span class="tag major">major</span></td>' in page
    assert "../compare.html#1.0.0..1.0.1" in page
    assert "No image of this release is built here or published." in page


def test_lines_lie_by_date_where_all_are_known_else_by_position() -> None:
    releases = [facts(version, OLD) for version in ("1.0.0", "1.0.1", "1.1.0")]
    dated = render(site(*releases, v1_0_0="2026-01-01", v1_0_1="2026-04-11", v1_1_0="2026-01-21"))[
        "index.html"
    ].data.decode()
    assert "1.0.1, 2026-04-11" in dated
    assert "until 2026-07-01" in dated
    position = render(site(*releases, v1_0_0="2026-01-01"))["index.html"].data.decode()
    assert 'style="--a:50.0%" href="releases/1.0.1.html"' in position


def test_charts_repeat_and_carry_no_script() -> None:
    values: dict[str, list[float | None]] = {"cpu": [1.0, None, 3.0], "<gpu>": [2.0, 2.0, 2.0]}
    for draw in (line_chart, bar_chart):
        first, second = (draw("c", ["1.0", "1.1", "<b>"], values, str) for _ in range(2))
        assert first == second
        assert "<script" not in first
        assert "<style" not in first
        assert "<!--" not in first
        assert "<b>" not in first
        assert '<svg role="img" aria-labelledby="c"' in first
        assert "<title>1.0: 1.0</title>" in first


def decode(data: dict[str, Any], name: str, kind: int, at: int) -> tuple[str, bool] | None:
    """What the page's script reads: the version in a release and whether it is direct."""
    builds, runs, direct = data["packages"][name]
    for number, first, length in zip(*[iter(runs[kind])] * 3, strict=True):
        if first <= at < first + length:
            flags = direct[kind] if direct else []
            return builds[number][0], any(
                start <= at < start + many for start, many in zip(*[iter(flags)] * 2, strict=True)
            )
    return None


CATALOGS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["1", "2"])),
        st.sets(st.sampled_from(["a", "b", "c"])),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=50)
@given(CATALOGS)
def test_data_decode_to_what_the_locks_say(catalog: list[tuple[dict[str, str], set[str]]]) -> None:
    releases = [
        facts(
            f"1.0.{number}", {f"{name}-{version}-h0": 1 for name, version in packages.items()}, " ".join(sorted(direct))
        )
        for number, (packages, direct) in enumerate(catalog)
    ]
    text = to_script(catalog_data(releases))
    data = json.loads(text.removeprefix(f"var {VARIABLE}=").removesuffix(";\n"))
    for at, (packages, direct) in enumerate(catalog):
        for name in data["packages"]:
            expected = (packages[name], name in direct) if name in packages else None
            assert decode(data, name, 0, at) == expected


def test_the_matrix_has_a_limit() -> None:
    names = {f"p{number}-{number}-h0": 1 for number in range(500)}
    release = facts("1.0.0", names, " ".join(name.split("-")[0] for name in names))
    page = render(site(release))["packages.html"].data.decode()
    assert page.count('<th scope="row"') == 220
