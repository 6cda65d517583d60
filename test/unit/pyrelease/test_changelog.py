"""What is unreleased becomes the section of a version; nothing is lost."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from lockyard.errors import ConfigError
from lockyard.pyrelease.changelog import NOTHING, release, section_of

DAY = dt.date(2026, 3, 1)
TEXT = """\
# Changelog

Words.

## [Unreleased]

### Fixed

- The third.

## [0.2.0a2] - 2026-02-02

Nothing that users notice.

## [0.2.0a1] - 2026-02-01

### Fixed

- The second.

### Added

- The first,
  on two lines.

## [0.1.0] - 2026-01-01

- Old.

[Unreleased]: https://example.com/lab/compare/v0.2.0a1...HEAD
[0.2.0a1]: https://example.com/lab/compare/v0.1.0...v0.2.0a1
"""


def make(text: str, version: str) -> str:
    return release(text, Version(version), DAY, f"v{version}", source="CHANGELOG.md").text


def test_a_pre_release() -> None:
    assert make(TEXT, "0.2.0rc1") == TEXT.replace(
        "## [Unreleased]\n", "## [Unreleased]\n\n## [0.2.0rc1] - 2026-03-01\n"
    ).replace(
        "[Unreleased]: https://example.com/lab/compare/v0.2.0a1...HEAD\n",
        "[Unreleased]: https://example.com/lab/compare/v0.2.0rc1...HEAD\n"
        "[0.2.0rc1]: https://example.com/lab/compare/v0.2.0a1...v0.2.0rc1\n",
    )


def test_a_final_version_tells_of_its_pre_releases() -> None:
    text = make(TEXT, "0.2.0")
    start, end = text.index("## [Unreleased]"), text.index("\n[Unreleased]:")
    assert text[start:end] == (
        "## [Unreleased]\n\n## [0.2.0] - 2026-03-01\n\n### Added\n\n- The first,\n  on two lines.\n\n"
        "### Fixed\n\n- The third.\n- The second.\n\n## [0.1.0] - 2026-01-01\n\n- Old.\n"
    )
    assert (
        section_of(text, Version("0.2.0"))
        == "### Added\n\n- The first,\n  on two lines.\n\n### Fixed\n\n- The third.\n- The second.\n"
    )


def test_a_pre_release_without_entries() -> None:
    assert f"## [0.1.0a1] - 2026-03-01\n\n{NOTHING}\n" in make("# C\n\n## [Unreleased]\n", "0.1.0a1")
    assert section_of("# C\n", Version("1.0")) is None


@pytest.mark.parametrize(
    ("text", "version", "message"),
    [
        ("# C\n", "1.0.0", "CHANGELOG.md has no section [Unreleased]"),
        ("## [Unreleased]\n\n## [1.0.0]\n", "1.0.0", "CHANGELOG.md:3: 1.0.0 has a section already"),
        ("## [Unreleased]\n\n## [0.9]\n- x\n", "1.0.0", "[Unreleased] says nothing, and 1.0.0 is a final version"),
    ],
)
def test_what_is_refused(text: str, version: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(text, version)
    assert message in caught.value.message


entries = st.lists(st.text(alphabet="abc ,.", min_size=1, max_size=12).map(lambda text: f"- x{text}"), max_size=4)


@given(entries, entries, entries, st.sampled_from(["1.0.0a3", "1.0.0", "2.0.0"]))
def test_every_entry_stays(new: list[str], second: list[str], first: list[str], version: str) -> None:
    text = "# C\n\n## [Unreleased]\n\n### Added\n\n" + "\n".join(["- one", *new])
    text += "\n\n## [1.0.0a2] - 2026-01-02\n\n### Changed\n\n" + "\n".join(second)
    text += "\n\n## [1.0.0a1] - 2026-01-01\n\n### Added\n\n" + "\n".join(first) + "\n"
    after = make(text, version)
    kept = sorted(line for line in text.splitlines() if line.startswith("- "))
    assert sorted(line for line in after.splitlines() if line.startswith("- ")) == kept
