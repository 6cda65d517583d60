"""Configuration: parsed strictly, typos answered with the nearest name and the line."""

import re

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
        ('base = "scratch"', 'compression = "zstd:0"', r"variants.toml:9: variants.gpu.compression: .*'zstd:9'"),
        (
            'base = "scratch"',
            'compression = "gzip:1"',
            r"variants.toml:9: variants.gpu.compression: Input should be 'gzip'",
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


@pytest.mark.parametrize(("text", "line"), [("a = 1\na = 2\n", ":2"), ("[x\n", ":1"), ('a = "', "")])
def test_what_is_no_toml_says_where(text: str, line: str) -> None:
    with pytest.raises(ConfigError, match=rf"^v\.toml{line}: this is no TOML: [A-Z]"):
        parse_line(text, source="v.toml")


def test_zstd_may_have_a_level() -> None:
    assert parse_line(LINE, source="v").variant("gpu").compression == "gzip"
    text = LINE.replace('base = "scratch"', 'compression = "zstd:1"')
    assert parse_line(text, source="v").variant("gpu").compression == "zstd:1"


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


SETTINGS = """\
schema = 1
owner = "5:6"
activation = "none"
[post-link]
"gdk-*" = "skip"
gdk-pixbuf = "run"
[variants.cpu]
[variants.gpu]
owner = "1000:100"
activation = "env"
compile-pyc = false
platforms = ["linux-64", "linux-aarch64"]
post-link = { graphviz = "refuse" }
[variants.gpu.platform.linux-aarch64]
compile-pyc = true
post-link = "skip"
"""


def test_settings_of_an_environment_are_the_platforms_then_the_variants_then_the_lines() -> None:
    line = parse_line(SETTINGS, source="variants.toml")
    cpu, gpu = line.settings("cpu", "linux-64"), line.settings("gpu", "linux-64")
    arm = line.settings("gpu", "linux-aarch64")
    assert [(item.owner, item.activation, item.compile_pyc) for item in (cpu, gpu, arm)] == [
        ((5, 6), "none", True), ((1000, 100), "env", False), ((1000, 100), "env", True),
    ]  # fmt: skip
    names = ("gdk-pixbuf", "gdk-other", "graphviz", "else")
    assert [cpu.post_link_of(name) for name in names] == ["run", "skip", "run", "run"]
    assert [gpu.post_link_of(name) for name in names] == ["run", "skip", "refuse", "run"]
    assert [arm.post_link_of(name) for name in names] == ["skip", "skip", "skip", "skip"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('owner = "5:6"', 'owner = "root"', "variants.toml:2: owner: 'root' is not UID:GID"),
        ('owner = "1000:100"', 'owner = "1000"', "variants.toml:9: variants.gpu.owner: '1000' is not UID:GID"),
        ('activation = "none"', 'activation = "shell"', "variants.toml:3: activation: Input should be 'env' or 'none'"),
        (
            "compile-pyc = false",
            "compile-pyx = false",
            "variants.toml:11: unknown key 'variants.gpu.compile-pyx'; did you mean 'compile-pyc'",
        ),
        ('"gdk-*" = "skip"', '"gdk-*" = "ignore"', "variants.toml:4: post-link: 'gdk-*': 'ignore' is neither"),
    ],
)
def test_wrong_settings_name_the_line(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_line(SETTINGS.replace(old, new), source="variants.toml")
