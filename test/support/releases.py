"""Releases of a small distribution, as trees for pure tests and as directories for functional ones."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from lockyard import fs
from lockyard.distribution import Distribution, parse_distribution, parse_line
from lockyard.distribution import Line as LineConfig
from lockyard.tree import File, Tree
from lockyard.version import Version, release_dir

INSTALLED = {"python": "3.11.9", "numpy": "2.2.1", "tzdata": "2024a"}
ENV_IN = "conda-forge::python\nconda-forge::numpy[version='>=2,<3']\nconda-forge::tzdata\n"
VARIANTS = "schema = 1\n[variants.cpu]\n[variants.gpu]\nargs = { CUDA = '12.6' }\n"
LINE_SOURCE = "template/v1/variants.toml"


def env_out(installed: Mapping[str, str] = INSTALLED) -> str:
    """An explicit list with these versions from conda-forge."""
    lines = [
        f"https://conda.anaconda.org/conda-forge/linux-64/{name}-{v}-h0_0.conda#{'0' * 32}"
        for name, v in installed.items()
    ]
    return "\n".join(["# platform: linux-64", "@EXPLICIT", *lines, ""])


def release(types: Iterable[str] = ("cpu", "gpu"), **extra: str) -> Tree:
    """An adopted release; `extra` are further files, `__` standing for a dot in their names."""
    files = {"source-version.txt": "1.0.0"}
    for name in types:
        files |= {f"{name}.env.in": ENV_IN, f"{name}.env.out": env_out()}
    files |= {name.replace("__", "."): text for name, text in extra.items()}
    return Tree({name: File.text(text) for name, text in files.items()})


def line(text: str = VARIANTS) -> LineConfig:
    """A major line."""
    return parse_line(text, source=LINE_SOURCE)


def distribution() -> Distribution:
    """The distribution's own table."""
    return parse_distribution('name = "small"', source="lockyard.toml")


def write_distribution(root: Path, releases: Mapping[str, Tree], *, variants: str = VARIANTS) -> Path:
    """Write a distribution with these releases and major lines 1 and 2."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "lockyard.toml").write_text('name = "small"\n')
    for major in (1, 2):
        fs.atomic_write(root / f"template/v{major}/variants.toml", variants.encode())
    for version, tree in releases.items():
        place = root / release_dir(Version.parse(version))
        for path, file in tree.items():
            fs.atomic_write(place / path, file.data, file.mode)
    return root
