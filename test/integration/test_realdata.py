"""Parsers, writers and the diff over every line of 164 real releases."""

import json
from pathlib import Path

import pytest

from lockyard.cli.root import run
from lockyard.conda.formats import read_env_out, read_lock_json, write_env_out, write_lock_json
from lockyard.conda.lock import Lock
from support.upstream import upstream_distribution, upstream_texts

pytestmark = [pytest.mark.integration, pytest.mark.realdata]


def test_the_changes_of_162_real_releases_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every published `changes.expected.json`, by what `diff --json` prints: sections `changed`, `added`, `removed`."""
    monkeypatch.chdir(upstream_distribution(tmp_path))
    wrong, count = [], 0
    for place in sorted(path.parent for path in tmp_path.rglob("cpu.changes.expected.json")):
        base, target = (place / "source-version.txt").read_text().strip(), place.name.removeprefix("v")
        assert run(["diff", base, target, "--json"], environ={}) == 0
        types = json.loads(capsys.readouterr().out)["types"]
        for path in place.glob("*.changes.expected.json"):
            expected = json.loads(path.read_text())
            found = types[path.name.partition(".")[0]]
            for part in ("direct", "indirect"):
                found[part].pop("rebuilt")
            count += 1
            if expected["base"] != base or any(found[part] != expected[part] for part in ("direct", "indirect")):
                wrong.append(str(path))
    assert not wrong
    assert count == 324


def test_every_published_explicit_list_is_read_and_written_back() -> None:
    """All env.out of 164 real releases: byte for byte, but for a missing final newline."""
    count = 0
    lists = {name: text for name, text in upstream_texts().items() if name.endswith(".env.out")}
    assert len(lists) == 328
    for name, text in lists.items():
        packages = read_env_out(text, name)
        count += len(packages)
        assert write_env_out(packages, "linux-64").rstrip("\n") == text.rstrip("\n"), name
    assert count > 200_000
    print(f"{count} locked packages")


def test_every_published_package_survives_a_lock_file() -> None:
    """`env.out` → `lock.json` → the same packages, all of 164 real releases."""
    for name, text in upstream_texts().items():
        if not name.endswith(".env.out"):
            continue
        lock = Lock(image_type="cpu", platforms={"linux-64": read_env_out(text, name)})
        assert read_lock_json(write_lock_json(lock), name) == lock, name
