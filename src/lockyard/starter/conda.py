"""A new distribution of conda packages: its files, all of them, from names and addresses. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lockyard.adoption.lines import KERNEL, glibc_of
from lockyard.conda.channels import parse_channel
from lockyard.distribution import parse_distribution, parse_line
from lockyard.starter.files import placed, rendered, subtree
from lockyard.tree import Tree
from lockyard.version import Version, release_dir

CONFIG = "lockyard.toml"
FIRST = Version(0, 1, 0)
"""The first release."""
_LINE = "template/v0"
_CPU_BASE = "docker.io/library/ubuntu:24.04"
_GPU_BASE = "docker.io/nvidia/cuda:12.9.1-base-ubuntu24.04"
_CUDA = "12.9"
_GPU_RE = re.compile(r"(?:^|[-_])(?:gpu|cuda)(?:$|[-_])")


@dataclass(frozen=True, slots=True)
class ImageType:
    """One image type as the templates see it."""

    name: str
    base: str
    virtual: Mapping[str, str]
    gpu: bool


@dataclass(frozen=True, kw_only=True)
class CondaStart:
    """What a new distribution is made from; `links` are path → what it leads to, made beside the files and not committed.

    `base` is for all types, the defaults of `image_types` where it is `None`; `virtual` replaces what these state.
    """

    name: str
    title: str
    types: Sequence[str]
    channel: str = "conda-forge"
    base: str | None = None
    virtual: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def image_types(start: CondaStart) -> tuple[ImageType, ...]:
    """Return the image types; one with `gpu` or `cuda` in its name is a GPU image."""
    found = []
    for name in start.types:
        gpu = _GPU_RE.search(name) is not None
        base = start.base or (_GPU_BASE if gpu else _CPU_BASE)
        virtual = {"__glibc": glibc_of(base), "__linux": KERNEL} | ({"__cuda": _CUDA} if gpu else {})
        own = {key: value for key, value in start.virtual.items() if gpu or key != "__cuda"}
        found.append(ImageType(name, base, {**virtual, **own}, gpu))
    return tuple(found)


def start_files(start: CondaStart, assets: Tree) -> Tree:
    """Return all files of a new distribution, checked as every command will read them.

    Raises:
        ConfigError: a name, a channel or a base is none.

    """
    # Before anything is rendered: these stand inside of other texts.
    parse_distribution(f"name = {json.dumps(start.name)}\n", source="--name")
    parse_channel(start.channel, source="--channel")
    values: dict[str, object] = {
        "name": start.name,
        "title": start.title,
        "channel": start.channel,
        "types": image_types(start),
        "names": tuple(start.types),
        "links": start.links,
    }
    first, line = str(release_dir(FIRST)), f"{_LINE}/v0.1"
    parts = {place: subtree(assets, place) for place in ("root", "template", "line", "release")}
    found = dict(rendered(parts["root"], values))
    found |= placed(_LINE, rendered(parts["template"], values))
    # The first release has what `create` would copy from its template.
    found |= {
        path: file for root in (line, first) for path, file in placed(root, rendered(parts["line"], values)).items()
    }
    for item in image_types(start):
        own = rendered(parts["release"], {**values, "item": item})
        found |= {f"{first}/{item.name}.{path}": file for path, file in own.items()}
    tree = Tree(found)
    for path, parse in ((CONFIG, parse_distribution), (f"{_LINE}/variants.toml", parse_line)):
        parse(tree[path].data.decode(), source=path)
    return tree
