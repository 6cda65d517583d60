"""How far a package may move: the tables, every shape of version, and the laws behind them."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rattler import BuildString, MatchSpec, PackageRecord, VersionSpec

from lockyard.conda.bounds import SHAPES, BoundsPolicy, Installed, next_specs, solver_spec, upper_bound, version_key
from lockyard.conda.spec import EnvIn, Spec, parse_env_in
from lockyard.distribution import Policy
from lockyard.errors import ConfigError
from lockyard.version import Bump

EMPTY = EnvIn("none")


EXPECTED = [
    ("1.26.4", "1.27.0", "2.0.0"),
    ("0.0.12", "0.1.0", "1.0.0"),
    ("24.2", "24.3.0", "25.0.0"),
    ("3", "3.1.0", "4.0.0"),
    ("1.2.3.4", "1.3.0", "2.0.0"),
    ("1.2.3.4.5", "1.3.0", "2.0.0"),
    ("1!2.3", "1!2.4.0", "1!3.0.0"),
    ("1.2.3rc1", "1.3.0", "2.0.0"),
    ("1.2.post1", "1.3.0", "2.0.0"),
    ("1.4.1.post1", "1.5.0", "2.0.0"),
    ("1.2+local.1", "1.3.0", "2.0.0"),
    ("2024a", "2024.1.0", "2025dev"),
    ("9e", "9.1.0", "10dev"),
    ("3post1", "4dev", "4dev"),
    ("0.52b1", "0.53dev", "1.0.0"),
    ("1.0rc1", "1.1dev", "2.0.0"),
    ("v1.2", "v1.3.0", "v2.0.0"),
    ("r4", "r4.1.0", "r5.0.0"),
    ("2025.06.13", "2025.7.0", "2026.0.0"),
    ("20230115", "20230200", "20240000"),
    ("20231231.1", "20231300", "20240000"),
    ("202301", "202302", "202400"),
    ("20239999", "20239999.1.0", "20240000.0.0"),
    ("1.2-3", "1.3.0", "2.0.0"),
    ("1.2.3", "1.3.0", "2.0.0"),
    ("1.02.03", "1.3.0", "2.0.0"),
    ("20230101", "20230200", "20240000"),
    ("1.2rc1", "1.3dev", "2.0.0"),
    ("1.2.3.dev4", "1.3.0", "2.0.0"),
    ("1.2.3+local", "1.3.0", "2.0.0"),
    ("1.2_3", "1.3.0", "2.0.0"),
]


def test_every_documented_shape_is_here() -> None:
    """The table of the reference is made by the code; what it says is checked by hand, below."""
    assert {installed for _, installed, _ in SHAPES} <= {installed for installed, _, _ in EXPECTED}


@pytest.mark.parametrize(("installed", "patch", "minor"), EXPECTED)
def test_shapes(installed: str, patch: str, minor: str) -> None:
    assert upper_bound(installed, Bump.PATCH) == patch
    assert upper_bound(installed, Bump.MINOR) == minor
    assert upper_bound(installed, Bump.MAJOR) is None


@pytest.mark.parametrize(
    ("policy", "patch", "minor", "major"),
    [
        ("semver", "3.12.0", "4.0.0", None),
        ("pythonesque", "3.12.0", "3.12.0", None),
        ("calver", "4.0.0", None, None),
        ("latest", None, None, None),
    ],
)
def test_policies(policy: Policy, patch: str | None, minor: str | None, major: str | None) -> None:
    assert [upper_bound("3.11.9", bump, policy) for bump in Bump] == [patch, minor, major]


@pytest.mark.parametrize(
    ("installed", "bump", "same_line", "next_line"),
    [
        ("2024a", Bump.PATCH, "2024b", "2025a"),
        ("2024a", Bump.MINOR, "2024b", "2025a"),
        ("9e", Bump.MINOR, "9f", "10a"),
        ("0.52b0", Bump.PATCH, "0.52b1", "0.53b0"),
        ("1.2.3rc1", Bump.PATCH, "1.2.3", "1.3.0"),
        ("1!2.3", Bump.PATCH, "1!2.3.9", "1!2.4.0"),
        ("1!2.3", Bump.MINOR, "1!2.9", "2!2.3"),
        ("2025.06.13", Bump.PATCH, "2025.06.20", "2025.07.01"),
        ("2025.06.13", Bump.MINOR, "2025.12.01", "2026.01.01"),
        ("20230115", Bump.PATCH, "20230131", "20230201"),
        ("20230115.2", Bump.MINOR, "20231231", "20240101"),
        ("v1.2", Bump.PATCH, "v1.2.9", "v1.3.0"),
        ("r4", Bump.MINOR, "r4.5", "r5"),
        ("1.2+local.1", Bump.PATCH, "1.2.9", "1.3.0"),
    ],
)
def test_conda_order_decides(installed: str, bump: Bump, same_line: str, next_line: str) -> None:
    """The range as written, read by rattler, takes the rest of the line and not the next line's first release."""
    base = parse_env_in("a", source="f")
    (item,) = next_specs(base, EMPTY, {"a": Installed(installed)}, bump, BoundsPolicy())
    assert item.spec.version is not None
    allowed = VersionSpec(item.spec.version)
    assert allowed.matches(version_key(installed))
    assert allowed.matches(version_key(same_line))
    assert not allowed.matches(version_key(next_line))


versions = st.from_regex(
    r"(?:[1-9]!)?(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,4}){0,4}(?:(?:rc|a|b|post|\.dev|\.post|_)[0-9]{1,2}|[a-f])?(?:\+l\.[0-9])?",
    fullmatch=True,
)
policies = st.sampled_from(["semver", "pythonesque", "calver", "latest", "pinned"])


@given(versions, st.sampled_from(Bump), policies)
def test_the_installed_version_is_always_allowed(installed: str, bump: Bump, policy: Policy) -> None:
    base = parse_env_in("a", source="f")
    (item,) = next_specs(base, EMPTY, {"a": Installed(installed)}, bump, BoundsPolicy({"a": policy}))
    assert item.spec.version is not None
    assert VersionSpec(item.spec.version).matches(version_key(installed))


@given(versions, st.sampled_from(["semver", "pythonesque", "calver", "latest"]))
def test_a_larger_bump_allows_no_less(installed: str, policy: Policy) -> None:
    found = [upper_bound(installed, bump, policy) for bump in Bump]
    assert found[2] is None
    for smaller, larger in itertools.pairwise(found):
        assert larger is None or (smaller is not None and not version_key(larger) < version_key(smaller))


@given(st.tuples(*[st.integers(0, 999)] * 3), st.integers(0, 999))
def test_patch_and_minor_lines_of_plain_numbers(version: tuple[int, int, int], other: int) -> None:
    """Patch holds X.Y and minor holds X, whatever follows."""
    x, y, z = version
    text = f"{x}.{y}.{z}"
    patch, minor = upper_bound(text, Bump.PATCH), upper_bound(text, Bump.MINOR)
    assert patch is not None
    assert minor is not None
    assert version_key(f"{x}.{y}.{z + other}") < version_key(patch) <= version_key(f"{x}.{y + 1}.{other}")
    assert version_key(f"{x}.{y + other}.{z}") < version_key(minor) <= version_key(f"{x + 1}.{other}.0")


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("<1.3.0", "<1.3.0,!=1.3.*"),
        (">=1.2.3,<2.0.0", ">=1.2.3,<2.0.0,!=2.*"),
        (">=1,<10", ">=1,<10,!=10.*"),
        ("<1.10.0", "<1.10.0,!=1.10.*"),
        ("<1.2.4", "<1.2.4,!=1.2.4.*"),
        (">=2024a,<2025dev", ">=2024a,<2025dev,!=2025.*"),
        (">=0.52b0,<0.53dev", ">=0.52b0,<0.53dev,!=0.53.*"),
        (">=v1.2,<v1.3.0", ">=v1.2,<v1.3.0,!=v1.3.*"),
        ("<1!2.4.0", "<1!2.4.0,!=1!2.4.*"),
        ("<1.3|>=2.5,<3", "<1.3,!=1.3.*|>=2.5,<3,!=3.*"),
        ("(<2|>3),!=1.5", "(<2,!=2.*|>3),!=1.5"),
        # What a person names stays within reach, and a bound of letters says already what it means.
        (">=2.0rc1,<2.0", ">=2.0rc1,<2.0"),
        ("<1.3.0a0", "<1.3.0a0"),
        ("<=1.3", "<=1.3"),
        ("==1.3", "==1.3"),
        (">1.3", ">1.3"),
    ],
)
def test_what_the_solver_is_asked(asked: str, given: str) -> None:
    assert solver_spec(Spec(name="a", version=asked)) == Spec(name="a", version=given)


def test_spec_without_a_version_is_asked_as_it_is() -> None:
    assert solver_spec(Spec(name="a", build="h0*")) == Spec(name="a", build="h0*")


def matches(spec: Spec, version: str) -> bool:
    """What rattler's own matcher says, as its solver does."""
    record = PackageRecord(name="a", version=version, build=BuildString("0"), build_number=0, subdir="linux-64")
    return MatchSpec(str(spec)).matches(record)


def series_of(bound: str) -> str:
    """The series that a bound begins: the bound without `dev` and without the zeros at its end."""
    return re.sub(r"(?:\.0)+$", "", bound.removesuffix("dev"))


PRE = ["rc1", ".0rc1", ".0.0a1", "a", "b2", "_", "_1", "dev", "dev0", ".dev1", "dev.dev", ".0.dev9", ".0+local", "+a.1"]


def test_without_it_pre_releases_would_come_in() -> None:
    """The trap that `solver_spec` closes is real."""
    plain = Spec(name="a", version=">=1.2.0,<1.3.0")
    assert matches(plain, "1.3.0rc1")
    assert matches(plain, "1.3.0+local")
    assert not matches(solver_spec(plain), "1.3.0rc1")
    assert not matches(solver_spec(plain), "1.3.0+local")


@given(versions, st.sampled_from([Bump.PATCH, Bump.MINOR]), policies, st.sampled_from(PRE), versions)
def test_no_bound_admits_a_pre_release_of_the_next_series(
    installed: str, part: Bump, policy: Policy, pre: str, other: str
) -> None:
    """The first pre-release of the next series stays out, what is installed and every other version as before."""
    base = parse_env_in("a", source="f")
    (item,) = next_specs(base, EMPTY, {"a": Installed(installed)}, part, BoundsPolicy({"a": policy}))
    asked = solver_spec(item.spec)
    assert matches(asked, installed)
    bound = upper_bound(installed, part, policy)
    if bound is None or policy == "pinned":
        assert asked == item.spec
        return
    series = series_of(bound)
    assert not matches(asked, f"{series}{pre}")
    if not VersionSpec(f"{series}.*").matches(version_key(other)):
        assert matches(asked, other) == matches(item.spec, other)


@pytest.mark.parametrize("text", ["", "a b", "1..2", "x!1", "-1", "1;2"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a conda version"):
        upper_bound(text, Bump.PATCH)


def test_policy_by_name_then_by_glob() -> None:
    policy = BoundsPolicy({"cuda-*": "pinned", "cuda-nvrtc": "latest", "*": "calver"})
    assert policy.of("cuda-nvrtc") == "latest"
    assert policy.of("cuda-cudart") == "pinned"
    assert policy.of("pytz") == "calver"
    assert policy.of("python") == "pythonesque"
    assert BoundsPolicy({"python": "semver"}).of("python") == "semver"
    assert BoundsPolicy().of("numpy") == "semver"


def lines(base: str, additional: str = "", bump: Bump = Bump.PATCH, **installed: str) -> list[str]:
    found = next_specs(
        parse_env_in(base, source="base"),
        parse_env_in(additional, source="additional"),
        {name: Installed(version) for name, version in installed.items()},
        bump,
        BoundsPolicy({"held": "pinned"}),
    )
    return [str(item.spec) for item in found]


def test_additional_names_come_first_and_a_name_of_both_keeps_the_bases_treatment() -> None:
    assert lines("c::a\nc::b", "c::x[version='>=1']\nc::b[version='>=9']", a="1.0.0", b="2.0.0") == [
        "c::x[version='>=1']",
        "c::b[version='>=2.0.0,<2.1.0']",
        "c::a[version='>=1.0.0,<1.1.0']",
    ]


def test_not_in_the_base_lock() -> None:
    """The additional file's constraint if it has one, else nothing."""
    assert lines("gone[version='>=1,<2']\nboth=1", "both[version='>=3']\nplain") == [
        "both[version='>=3']",
        "plain",
        "gone",
    ]


def test_pinned_stays_in_every_bump() -> None:
    for bump in Bump:
        assert lines("held", bump=bump, held="1.2.3") == ["held[version='==1.2.3']"]


def test_channel_is_what_was_asked_else_what_the_line_declares() -> None:
    base = parse_env_in("a\nother::b\nc\nhttps://h/chan/linux-64/d-1-0.conda", source="base")
    installed = {
        "a": Installed("1", "conda-forge"),
        "b": Installed("1", "conda-forge"),
        "c": Installed("1"),
        "d": Installed("1", "conda-forge"),
    }
    found = next_specs(base, EMPTY, installed, Bump.MAJOR, BoundsPolicy())
    assert [str(item.spec) for item in found] == [
        "conda-forge::a[version='>=1']",
        "other::b[version='>=1']",
        "c[version='>=1']",
        "conda-forge::d[version='>=1']",
    ]
