"""Parsers, writers and the diff over every line of 164 real releases."""

import json
from collections.abc import Collection

import pytest

from lockyard.conda.diff import diff_locks
from lockyard.conda.formats import read_env_out, write_env_out
from lockyard.conda.spec import parse_env_in
from lockyard.version import Version, release_dir
from support.upstream import upstream_texts

pytestmark = [pytest.mark.integration, pytest.mark.realdata, pytest.mark.xdist_group("realdata")]


def test_the_changes_of_162_real_releases_are_found() -> None:
    """Every published `changes.expected.json` of the shared releases, sections `changed`, `added` and `removed`."""
    files = upstream_texts()
    locks = {name: read_env_out(text, name) for name, text in files.items() if name.endswith(".env.out")}

    def direct(name: str) -> Collection[str]:
        return parse_env_in(files[name], source=name).by_name

    wrong, count = [], 0
    for name, text in files.items():
        place, _, file_name = name.rpartition("/")
        if not file_name.endswith(".changes.expected.json"):
            continue
        expected = json.loads(text)
        kind = file_name.partition(".")[0]
        base = release_dir(Version.parse(expected["base"]))
        found = diff_locks(
            locks[f"{base}/{kind}.env.out"],
            locks[f"{place}/{kind}.env.out"],
            old_direct=direct(f"{base}/{kind}.env.in"),
            new_direct=direct(f"{place}/{kind}.env.in"),
        ).to_json()
        for section in found.values():
            section.pop("rebuilt")
        count += 1
        if found != {part: expected[part] for part in ("direct", "indirect")}:
            wrong.append(name)
    assert not wrong
    assert count == 324


def test_every_published_explicit_list_is_read_and_written_back() -> None:
    """All env.out of 164 real releases: byte for byte, but for a missing final newline."""
    lists = {name: text for name, text in upstream_texts().items() if name.endswith(".env.out")}
    assert len(lists) == 328
    for name, text in lists.items():
        assert write_env_out(read_env_out(text, name), "linux-64").rstrip("\n") == text.rstrip("\n"), name
