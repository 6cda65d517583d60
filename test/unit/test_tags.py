"""The laws of tags: what moves depends on what is published, never on the order in which it was."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.errors import ConfigError
from lockyard.tags import exact_tag, floating_tags, is_ambiguous, version_of_tag
from lockyard.version import Version

_small = st.integers(0, 2)
# Two identifiers: with one, the exact tag of a pre-release reads like a floating tag (tested on its own).
_pre = st.one_of(
    st.just(()), st.tuples(st.sampled_from(["alpha", "beta", "rc"]), st.sampled_from(["1", "2", "10", "x"]))
)
versions = st.builds(Version, _small, _small, _small, _pre)
histories = st.lists(versions, unique=True, min_size=1, max_size=7)


def publish(order: list[Version]) -> dict[str, Version]:
    """Publish in this order; return what each tag points to in the end."""
    tags: dict[str, Version] = {}
    known: list[Version] = []
    for version in order:
        for tag in floating_tags(version, known, image_type="cpu"):
            tags[tag] = version
        tags[exact_tag(version, image_type="cpu")] = version
        known.append(version)
    return tags


def parse(*texts: str) -> list[Version]:
    return [Version.parse(text) for text in texts]


@pytest.mark.parametrize(
    ("version", "known", "expected"),
    [
        ("1.4.2", [], "1.4 1 latest"),
        ("1.4.2", ["1.4.1", "1.3.9"], "1.4 1 latest"),
        ("1.4.2", ["1.5.0"], "1.4"),
        ("1.4.2", ["2.0.0"], "1.4 1"),
        ("1.4.2", ["1.4.7"], ""),  # with a gap, and published out of order
        ("1.4.2", ["1.4.3-beta.1", "2.0.0-rc.1"], "1.4 1 latest"),  # a pre-release never holds a final version back
        ("1.4.2-beta.1", ["1.4.1", "2.0.0"], "1.4.2-beta 1.4-beta 1-beta latest-beta"),
        ("1.4.2-beta.1", ["1.5.0-beta.1"], "1.4.2-beta 1.4-beta"),
        ("1.4.2-beta.1", ["1.4.2-rc.1"], "1.4.2-beta 1.4-beta 1-beta latest-beta"),
        ("1.4.2-beta.2", ["1.4.2-beta.10"], ""),
        ("1.4.2-beta", [], "1.4-beta 1-beta latest-beta"),
        ("1.4.2-beta.1", ["1.4.2-beta"], "1.4-beta 1-beta latest-beta"),  # 1.4.2-beta is an exact tag there
    ],
)
def test_examples(version: str, known: list[str], expected: str) -> None:
    tags = floating_tags(Version.parse(version), parse(*known), template="{version}", image_type="cpu")
    assert " ".join(tags) == expected


def test_the_template_places_version_and_type() -> None:
    version = Version.parse("1.4.2")
    assert exact_tag(version, template="{type}_v{version}", image_type="gpu") == "gpu_v1.4.2"
    assert floating_tags(version, [], template="{type}_v{version}", image_type="gpu") == (
        "gpu_v1.4",
        "gpu_v1",
        "gpu_vlatest",
    )


def test_a_template_that_gives_no_valid_tag_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a valid image tag"):
        exact_tag(Version.parse("1.4.2"), template="+{version}", image_type="cpu")


@given(histories, st.randoms(use_true_random=False))
def test_the_order_of_publishing_does_not_matter(history: list[Version], random: object) -> None:
    shuffled = list(history)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert publish(shuffled) == publish(history)


@given(histories)
def test_a_tag_never_moves_backwards(history: list[Version]) -> None:
    for size in range(1, len(history)):
        before, after = publish(history[:size]), publish(history[: size + 1])
        assert all(before[tag] <= after[tag] for tag in before)


@given(histories)
def test_each_tag_points_to_the_highest_of_its_line(history: list[Version]) -> None:
    tags = publish(history)
    finals = [version for version in history if not version.pre]
    if finals:
        assert tags["latest-cpu"] == max(finals)
    for version in finals:
        line = [item for item in finals if (item.major, item.minor) == (version.major, version.minor)]
        assert tags[f"{version.major}.{version.minor}-cpu"] == max(line)
    for version in history:
        if version.pre:
            channel = [item for item in history if item.pre[:1] == version.pre[:1]]
            assert tags[f"latest-{version.pre[0]}-cpu"] == max(channel)


@given(histories)
def test_a_back_patch_of_an_old_line_never_moves_latest(history: list[Version]) -> None:
    newest = Version(9, 0, 0)
    for version in history:
        moved = floating_tags(version, [*history, newest], image_type="cpu")
        assert "latest-cpu" not in moved


@given(histories, versions)
def test_a_pre_release_moves_only_tags_with_its_identifier(history: list[Version], version: Version) -> None:
    for tag in floating_tags(version, history, template="{version}", image_type="cpu"):
        assert (tag.partition("-")[2] == version.pre[0]) if version.pre else "-" not in tag


@given(histories, versions)
def test_publishing_again_moves_the_same_tags(history: list[Version], version: Version) -> None:
    once = floating_tags(version, history, image_type="cpu")
    assert floating_tags(version, [*history, version], image_type="cpu") == once


@given(versions, st.sampled_from([None, "{version}", "v{version}", "{type}-{version}-x"]))
def test_the_exact_tag_leads_back_to_its_version(version: Version, template: str | None) -> None:
    tag = exact_tag(version, template=template, image_type="cpu")
    assert version_of_tag(tag, template=template, image_type="cpu") == version


@given(versions)
def test_only_the_patch_channel_tag_can_be_taken_for_an_exact_tag(version: Version) -> None:
    for tag in floating_tags(version, [], image_type="cpu"):
        read = version_of_tag(tag, image_type="cpu")
        assert read is None or (is_ambiguous(read) and read.final == version.final)


@pytest.mark.parametrize("tag", ["1.4-cpu", "latest-cpu", "1.4.2-gpu", "1.4.2", "01.4.2-cpu", "cpu", "-cpu", ""])
def test_other_tags_are_no_version(tag: str) -> None:
    assert version_of_tag(tag, image_type="cpu") is None


def test_every_order_of_a_small_history_ends_the_same() -> None:
    history = parse("1.4.0", "1.4.1", "1.5.0", "2.0.0-beta.1", "2.0.0-beta.2")
    ends = {
        tuple(sorted((tag, str(version)) for tag, version in publish(list(order)).items()))
        for order in itertools.permutations(history)
    }
    assert len(ends) == 1
