"""What follows what among releases."""

from hypothesis import given
from hypothesis import strategies as st

from lockyard.artifacts.catalog import Catalog
from lockyard.version import Version

V = Version.parse
CATALOG = Catalog(
    {
        V("1.5.0"): ("cpu", "gpu"),
        V("1.4.0"): ("cpu",),
        V("1.4.1-beta.1"): ("cpu", "gpu"),
        V("1.4.1"): ("cpu",),
        V("2.0.0-rc.1"): ("cpu",),
    }
)


def test_known() -> None:
    assert [str(version) for version in CATALOG.known()] == ["1.4.0", "1.4.1-beta.1", "1.4.1", "1.5.0", "2.0.0-rc.1"]
    assert [str(version) for version in CATALOG.known("gpu")] == ["1.4.1-beta.1", "1.5.0"]
    assert CATALOG.known("tpu") == ()


def test_previous() -> None:
    """A final release is preceded by a final one; a pre-release by anything."""
    assert CATALOG.previous(V("1.4.1")) == V("1.4.0")
    assert CATALOG.previous(V("1.4.1-beta.2")) == V("1.4.1-beta.1")
    assert CATALOG.previous(V("1.4.0")) is None
    assert CATALOG.previous(V("9.0.0")) == V("1.5.0")
    assert CATALOG.previous(V("1.5.0"), "gpu") is None


def test_latest() -> None:
    assert CATALOG.latest() == V("1.5.0")
    assert CATALOG.latest(pre_releases=True) == V("2.0.0-rc.1")
    assert CATALOG.latest(major=1, minor=4) == V("1.4.1")
    assert CATALOG.latest("gpu", major=1, minor=4) is None
    assert CATALOG.latest(major=2) is None


@given(st.sets(st.tuples(*[st.integers(0, 3)] * 3), min_size=1))
def test_previous_walks_through_all_releases(numbers: set[tuple[int, int, int]]) -> None:
    catalog = Catalog({Version(*parts): () for parts in numbers})
    found = [catalog.latest()]
    while found[-1] is not None:
        found.append(catalog.previous(found[-1]))
    assert found[-2::-1] == list(catalog.known())
