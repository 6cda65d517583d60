"""Spec round trips over every line of every spec file and explicit list of 164 real releases."""

import pytest
from rattler import MatchSpec, Version, VersionSpec

from lockyard.conda.bounds import solver_spec
from lockyard.conda.spec import Spec, format_env_in, parse_env_in, parse_spec
from support.upstream import upstream_texts

pytestmark = [pytest.mark.integration, pytest.mark.realdata]

ARGUMENTS = {"CUDA_MAJOR_MINOR_VERSION": "12.6"}
TYPO = "[version'"


def test_every_line_of_every_release(capsys: pytest.CaptureFixture[str]) -> None:
    """What is written is read as the same spec, and rattler understands the line and what is written alike.

    Lines that come again in another release are counted, and parsed once.
    """
    count = 0
    specs: dict[str, Spec] = {}
    for name, text in upstream_texts().items():
        if not name.endswith((".in", ".out")):
            continue
        lines = text.splitlines()
        count += text.count("\n")
        variables = ARGUMENTS if name.endswith(".arg_based_env.in") else None
        new = [line for line in lines if line not in specs]
        for item in parse_env_in("\n".join(new), source=name, variables=variables).lines:
            specs[new[item.number - 1]] = item.spec
            assert parse_spec(str(item.spec), source=item.where) == item.spec, item.where
            if item.spec.url is None and TYPO not in item.text:
                assert str(MatchSpec(item.text)) == str(MatchSpec(str(item.spec))), item.where
    assert parse_env_in(format_env_in(specs.values()), source="written").specs == tuple(specs.values())
    addresses = sum(spec.url is not None for spec in specs.values())
    with capsys.disabled():
        print(f"\nreal releases: {count} lines, {len(specs)} of them different specs ({addresses} addresses)")
    assert count == 258_151


def test_the_solver_may_take_what_the_releases_have() -> None:
    """What a spec file's bound allowed and the release's lock has is not left out with the pre-releases."""
    texts, checked = upstream_texts(), 0
    for name, text in texts.items():
        if not name.endswith(".env.in"):
            continue
        locked = {}
        for line in texts[f"{name.removesuffix('in')}out"].splitlines():
            package, _, _ = line.rpartition("/")[2].rpartition("-")
            key, _, version = package.rpartition("-")
            locked[key] = version
        for spec in parse_env_in(text, source=name).specs:
            asked = solver_spec(spec)
            if asked != spec and spec.name in locked and spec.version and asked.version:
                have = Version(locked[spec.name])
                assert VersionSpec(asked.version).matches(have) == VersionSpec(spec.version).matches(have), name
                checked += 1
    assert checked > 10_000
