"""What a promotion may change and what it proves."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.errors import BuildError
from lockyard.oci.image import Image, Layer
from lockyard.oci.promotion import FIELDS, VERSION_LABEL, content_digest, differences, promoted, prove
from lockyard.oci.values import Descriptor, Digest, MediaType
from lockyard.version import Version

FINAL = Version.parse("1.4.2")
LAYER = Layer(Descriptor.of(MediaType.LAYER_GZIP, b"layer"), Digest.of(b"tar"))
CONFIG: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2026-01-01T00:00:00Z",
    "config": {
        "Env": ["PATH=/usr/bin", "IMAGE_VERSION=1.4.2-beta.1", "OTHER=IMAGE_VERSION=1.4.2-beta.1"],
        "Labels": {VERSION_LABEL: "1.4.2-beta.1", "other": "1.4.2-beta.1"},
        "Cmd": ["python"],
    },
    "rootfs": {"type": "layers", "diff_ids": [str(LAYER.diff_id)]},
}


def image(**changes: Any) -> Image:
    return Image.of({**copy.deepcopy(CONFIG), **changes}, (LAYER,))


def test_three_fields_and_nothing_else() -> None:
    old = image()
    new = promoted(old, FINAL, "2026-02-02T00:00:00Z")
    assert {key for key, _, _ in differences(old, new)} == set(FIELDS)
    assert new.config["config"]["Env"][2] == "OTHER=IMAGE_VERSION=1.4.2-beta.1"
    assert new.config["config"]["Labels"]["other"] == "1.4.2-beta.1"
    assert content_digest(old) == content_digest(new)
    lines = prove(old, new)
    assert f"config.Labels.{VERSION_LABEL}: 1.4.2-beta.1 -> 1.4.2" in lines
    assert lines[-1] == "nothing else differs"


def test_without_a_time_the_image_keeps_its_own() -> None:
    assert promoted(image(), FINAL).config["created"] == CONFIG["created"]
    assert promoted(image(), FINAL).digest == promoted(image(), FINAL).digest


def test_an_image_that_says_no_version_gets_none() -> None:
    bare = image(config={"Cmd": ["python"]})
    assert promoted(bare, FINAL).config == bare.config


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("config", "Cmd"), ["bash"]),
        (("config", "User"), "root"),
        (("config", "Env"), ["PATH=/evil", "IMAGE_VERSION=1.4.2", "OTHER=IMAGE_VERSION=1.4.2-beta.1", "PATH=/usr/bin"]),
        (("config", "Env"), ["PATH=/usr/bin:/evil", "IMAGE_VERSION=1.4.2"]),
        (("config", "Env"), ["IMAGE_VERSION=1.4.2", "PATH=/usr/bin", "OTHER=IMAGE_VERSION=1.4.2-beta.1"]),
        (("config", "Labels"), {VERSION_LABEL: "1.4.2", "other": "1.4.2"}),
        (("architecture",), "arm64"),
        (("author",), "someone"),
    ],
)
def test_any_other_change_is_found(path: tuple[str, ...], value: Any) -> None:
    config = promoted(image(), FINAL).config
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    other = Image.of(config, (LAYER,))
    assert content_digest(other) != content_digest(image())
    with pytest.raises(BuildError, match="is not"):
        prove(image(), other)


def test_other_layers_are_found() -> None:
    layer = Layer(Descriptor.of(MediaType.LAYER_GZIP, b"other"), LAYER.diff_id)
    other = Image.of(promoted(image(), FINAL).config, (layer,))
    assert content_digest(other) != content_digest(image())
    with pytest.raises(BuildError):
        prove(image(), other)


texts = st.text(alphabet="ab.=[]0", max_size=4)


@given(st.lists(texts, max_size=4), st.dictionaries(texts, texts, max_size=4), st.lists(texts, max_size=4))
def test_configurations_with_one_content_differ_in_the_version_only(
    env: list[str], labels: dict[str, str], other: list[str]
) -> None:
    """No two environments read alike."""
    old = image(config={"Env": env, "Labels": labels})
    new = promoted(old, FINAL, "2027-01-01T00:00:00Z")
    assert content_digest(old) == content_digest(new)
    assert {key for key, _, _ in differences(old, new)} <= set(FIELDS)
    changed = image(config={"Env": other, "Labels": labels})
    assert (content_digest(changed) == content_digest(old)) == (other == env)
