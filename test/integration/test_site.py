"""The site in a real browser, opened from files: 164 real releases where they are to be had, a small catalog everywhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockyard.cli.root import run
from support.browser import Browser, open_browser
from support.releases import INSTALLED, env_out, release, write_distribution
from support.upstream import upstream_distribution

pytestmark = pytest.mark.integration

NODES = "let n = 0, w = document.createTreeWalker(document, NodeFilter.SHOW_ALL); while (w.nextNode()) n++; return n"
HOSTILE = "x.img_src_onerror"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small catalog: three releases of two lines."""
    root = tmp_path_factory.mktemp("small")
    newer = {**INSTALLED, "numpy": "2.3.0", HOSTILE: "1"}
    files = {
        "1.0.0": release(), "1.0.1": release(cpu__env__out=env_out(newer)), "1.1.0": release(gpu__env__out=env_out({"python": "3.12.1"})),
    }  # fmt: skip
    write_distribution(root / "small", files)
    (root / "small/lockyard.toml").write_text('name = "small"\ntitle = "<b>Small</b>"\n')
    assert run(["--root", str(root / "small"), "-q", "site"], environ={}) == 0
    return root / "small/out/site"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = upstream_distribution(tmp_path_factory.mktemp("real") / "upstream")
    assert run(["--root", str(root), "-q", "site"], environ={}) == 0
    return root / "out/site"


def test_search_finds_versions_and_releases(browser: Browser, small: Path) -> None:
    browser.open(small / "packages.html", "#numpy%202.3")
    assert browser.text("#found tbody") == "numpy\t2.3.0\t1.0.1\tcpu"
    browser.run("q.value = 'numpy'; q.dispatchEvent(new Event('input'))")
    assert browser.text("#found tbody") == "numpy\t2.3.0\t1.0.1\tcpu\nnumpy\t2.2.1\t1.0.0 – 1.1.0\tcpu, gpu"
    browser.run("q.value = 'numpy 2'; q.dispatchEvent(new Event('input'))")
    assert browser.run("return document.querySelectorAll('#found tbody tr').length") == 2
    browser.run("q.value = 'numpy 2.'; q.dispatchEvent(new Event('input'))")
    browser.run("q.value = 'nothing'; q.dispatchEvent(new Event('input'))")
    assert browser.text("#found") == "No release has nothing."
    browser.run("q.value = 'constructor 1'; q.dispatchEvent(new Event('input'))")
    assert browser.text("#found") == "No release has constructor 1."
    browser.run("q.value = ''; q.dispatchEvent(new Event('input'))")
    assert browser.run("return !matrix.hidden && !found.children.length")
    assert browser.messages() == []


@pytest.mark.parametrize("fragment", ["#%", "#%E0%A4%A", "#a..b:c", "#1.0.0..nothing"])
@pytest.mark.parametrize("page", ["packages.html", "compare.html"])
def test_any_fragment_is_bearable(browser: Browser, small: Path, page: str, fragment: str) -> None:
    browser.open(small / page, fragment)
    assert browser.text("h1")
    assert browser.messages() == []


def test_the_first_page_leads_to_the_search(browser: Browser, small: Path) -> None:
    browser.open(small / "index.html")
    browser.run("q.value = 'tzdata 2024'; document.querySelector('.search button').click()")
    assert browser.run("return location.pathname").endswith("/packages.html")
    assert "tzdata\t2024a" in browser.text("#found tbody")
    assert browser.messages() == []


def test_compare(browser: Browser, small: Path) -> None:
    browser.open(small / "compare.html", "#1.0.0..1.0.1")
    assert browser.text("#summary") == "1.0.0 → 1.0.1, cpu: 1 changed, 1 added"
    assert "numpy\t2.2.1 → 2.3.0\tminor" in browser.text("#found")
    assert f"{HOSTILE}\t1\tnew" in browser.text("#found")
    browser.run("swap.click()")
    assert browser.text("#summary") == "1.0.1 → 1.0.0, cpu: 1 changed, 1 removed"
    assert "numpy\t2.3.0 → 2.2.1\tdowngrade" in browser.text("#found")
    browser.run("type.value = 1; type.dispatchEvent(new Event('change'))")
    assert browser.text("#summary") == "1.0.1 → 1.0.0, gpu: nothing changed"
    assert browser.run("return location.hash") == "#1.0.1..1.0.0:gpu"
    assert browser.messages() == []


def test_nothing_of_a_name_is_markup(browser: Browser, small: Path) -> None:
    browser.open(small / "index.html")
    assert browser.text(".brand") == "<b>Small</b>"
    assert browser.run("return document.querySelectorAll('.brand b').length") == 0


def test_dark_follows_the_system_and_the_button(browser: Browser, small: Path) -> None:
    def paper() -> str:
        return str(browser.run("return getComputedStyle(document.body).backgroundColor"))

    browser.prefer("light")
    browser.open(small / "index.html")
    light = paper()
    browser.prefer("dark")
    dark = paper()
    assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 200
    assert sum(map(int, re.findall(r"\d+", light)[:3])) > 600
    browser.run("document.querySelector('.theme').click()")
    assert paper() == light
    browser.open(small / "releases/1.0.1.html")
    assert paper() == light, "the choice is kept from page to page"
    browser.run("localStorage.clear()")
    browser.prefer("light")
    assert browser.messages() == []


@pytest.mark.parametrize("page", ["index.html", "packages.html", "compare.html", "releases/1.0.1.html"])
def test_a_narrow_screen_does_not_scroll_sideways(browser: Browser, small: Path, page: str) -> None:
    browser.resize(400)
    try:
        browser.open(small / page)
        assert browser.run("return document.documentElement.scrollWidth") == 400
    finally:
        browser.resize(1280)
    assert browser.messages() == []


def test_it_works_without_javascript(browser: Browser, small: Path) -> None:
    browser.scripts(on=False)
    try:
        browser.open(small / "packages.html")
        matrix = browser.text("#matrix tbody")
        assert "numpy" in matrix
        assert "The search needs JavaScript" in browser.text("noscript")
        browser.open(small / "releases/1.0.1.html")
        assert "numpy\t2.2.1 → 2.3.0\tminor" in browser.text("main")
    finally:
        browser.scripts(on=True)


@pytest.mark.parametrize("page", ["index.html", "packages.html", "compare.html", "releases/1.0.1.html"])
def test_keyboard_and_screen_readers(browser: Browser, small: Path, page: str) -> None:
    """A language, one main heading, every control and picture has a name, the skip link comes first."""
    browser.open(small / page)
    problems = browser.run(
        """
        const bad = [];
        const name = (e) => (e.labels && [...e.labels].map(l => l.textContent).join("")) || e.getAttribute("aria-label")
          || e.textContent.trim() || (e.getAttribute("aria-labelledby") && document.getElementById(e.getAttribute("aria-labelledby")));
        if (document.documentElement.lang !== "en") bad.push("lang");
        if (document.querySelectorAll("h1").length !== 1) bad.push("h1");
        document.querySelectorAll("a, button, input, select, svg, [role=region]").forEach(e => { if (!name(e)) bad.push(e.outerHTML); });
        document.querySelectorAll("th").forEach(e => { if (!e.scope) bad.push(e.outerHTML); });
        document.querySelectorAll("[id]").forEach(e => { if (document.querySelectorAll("#" + CSS.escape(e.id)).length > 1) bad.push(e.id); });
        document.querySelectorAll(".scroll").forEach(e => { if (e.tabIndex !== 0) bad.push(e.outerHTML.slice(0, 80)); });
        const first = document.querySelector("a, button, input"); if (!first.matches(".skip")) bad.push("skip");
        return bad;
        """
    )
    assert problems == []


def test_every_link_leads_somewhere(small: Path) -> None:
    for page in small.rglob("*.html"):
        for target in re.findall(r'(?:href|src)="(?!data:)([^"#:]+)', page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.realdata
class TestReal:
    """164 releases, up to 946 packages each."""

    def test_pages_are_light_and_silent(self, browser: Browser, real: Path) -> None:
        sizes = sorted(real.glob("releases/*.html"), key=lambda path: path.stat().st_size)
        assert len(sizes) == 164
        assert (real / "data.js").stat().st_size < 3_000_000
        pages = [
            (real / "index.html", ""),
            (real / "packages.html", ""),
            (real / "packages.html", "#a"),
            (sizes[-1], ""),
        ]
        pages.append((real / "compare.html", "#0.0.0..2.14.10:gpu"))
        for page, fragment in pages:
            browser.open(page, fragment)
            assert browser.run(NODES) < 20_000, f"{page.name}{fragment}"
            assert browser.messages() == []

    def test_which_releases_have_numpy_1_26(self, browser: Browser, real: Path) -> None:
        browser.open(real / "packages.html", "#numpy%201.26")
        assert "numpy\t1.26.4\t0.13.0, 1.4.4 – 2.14.10\tcpu, gpu" in browser.text("#found tbody")

    def test_kinds_are_those_of_the_diff(self, browser: Browser, real: Path) -> None:
        """The page orders versions by rules of its own: they agree with conda's where it matters."""
        from lockyard.reports.kinds import change_kind

        browser.open(real / "compare.html", "#1.0.0..2.14.10")
        rows = browser.run(
            "return [...document.querySelectorAll('#found tbody tr')].map(r => [...r.children].slice(1, 3).map(c => c.innerText))"
        )
        pairs = [(text.split(" → "), kind) for text, kind in rows if kind in {"major", "minor", "patch", "downgrade"}]
        wrong = [(old, new, kind) for (old, new), kind in pairs if change_kind(old, new) != kind]
        assert len(pairs) > 300
        assert wrong == []
