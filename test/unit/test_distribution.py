"""Configuration: parsed strictly, typos answered with the nearest name and the line."""

import pytest

from lockyard.distribution import parse_distribution, parse_line
from lockyard.errors import ConfigError

LINE = """\
schema = 1
channels = ["conda-forge"]

[variants.cpu]
base = "docker.io/library/ubuntu:24.04"
virtual-packages = { __glibc = "2.39" }

[variants.gpu]
base = "scratch"
platforms = ["linux-64", "linux-aarch64"]
[variants.gpu.platform.linux-aarch64]
base = "oci:bases/arm"
virtual-packages = { __glibc = "2.35" }
"""


def test_line() -> None:
    """Types keep file order; a platform overrides."""
    line = parse_line(LINE, source="variants.toml")
    assert line.types == ("cpu", "gpu")
    assert line.variant("gpu").base_for("linux-aarch64") == "oci:bases/arm"
    assert line.variant("gpu").base_for("linux-64") == "scratch"
    assert line.variant("cpu").virtual_packages_for("linux-64") == {"__glibc": "2.39"}
    assert line.policies == {"python": "pythonesque"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("channels", "chanels", r"variants.toml:2: unknown key 'chanels'; did you mean 'channels'\?"),
        (
            'base = "scratch"',
            'bass = "scratch"',
            r"variants.toml:9: unknown key 'variants.gpu.bass'; did you mean 'base'\?",
        ),
        ("schema = 1", "schema = 2", "schema 2 is newer"),
        ('"linux-64", ', '"Linux", ', "variants.toml:10: .*not a conda subdir"),
        ('"oci:bases/arm"', "3", "variants.toml:12"),
        ("schema = 1", 'schema = 1\nprefix = "/opt/../etc"', "prefix"),
        ("schema = 1", 'schema = 1\nassets = ["../x"]', "assets"),
        ("schema = 1", 'schema = 1\nowner = "root"', "owner"),
        ("schema = 1", "schema =", "variants.toml"),
    ],
)
def test_line_refused(old: str, new: str, message: str) -> None:
    """Each problem names its line."""
    with pytest.raises(ConfigError, match=message):
        parse_line(LINE.replace(old, new), source="variants.toml")


def test_unknown_type_suggests() -> None:
    """An unknown image type names the nearest."""
    with pytest.raises(ConfigError, match="unknown image type 'gpuu'") as caught:
        parse_line(LINE, source="v").variant("gpuu")
    assert caught.value.hint == "did you mean 'gpu'?"


def test_distribution() -> None:
    """Defaults follow the name; aliases resolve."""
    text = (
        '[tool.lockyard]\nname = "ds"\n[tool.lockyard.repositories]\na = "oci:x"\nb = { uri = "oci:y", stage = true }\n'
    )
    distribution = parse_distribution(text, source="pyproject.toml")
    assert (distribution.image, distribution.title) == ("localhost/ds", "ds")
    assert distribution.repository("a").uri == "oci:x"
    assert distribution.repository("b").stage
    assert distribution.repository("registry.example.com/x").uri == "registry.example.com/x"
    with pytest.raises(ConfigError, match="no \\[tool.lockyard\\]"):
        parse_distribution("[project]\n", source="pyproject.toml")
    with pytest.raises(ConfigError, match="lockyard.toml:1.*nam"):
        parse_distribution("nam = 'x'", source="lockyard.toml")
