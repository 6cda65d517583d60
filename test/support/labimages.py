"""The example labservice in a git repository of its own, with a base and wheels that make its images without a network."""

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from demochannel import tree
from demochannel.base import DEBS, WHEN, loader_cache, root_file_system
from demochannel.debian import Apt
from demochannel.interpreter import PYTHON
from lockyard.app.package import open_project
from lockyard.cli.root import make_toolbox
from lockyard.oci.image import Image, oci_platform
from lockyard.oci.layout import write_layout
from lockyard.ports import Toolbox
from lockyard.pyrelease.project import Project
from support.demo import demo_cache
from support.effects import RecordingLog
from support.images import real_layer
from support.package_index import fill
from support.require import ROOT

EXAMPLE = ROOT / "examples" / "labservice"
PYTHON_DEBS = (
    f"python{PYTHON}", f"python{PYTHON}-minimal", f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib",
    f"python{PYTHON}-venv", "python3-minimal", "python3-distutils", "python3-pip-whl", "python3-setuptools-whl", "zlib1g",
    "libexpat1", "libffi8", "libbz2-1.0", "liblzma5", "libssl3", "libuuid1",
)  # fmt: skip
USER_DEBS = ("passwd", "libaudit1", "libcap-ng0", "libpam0g", "libsemanage2", "libsepol2")
CLIENT = ("click",)
SERVER = ("markdown-it-py", "mdurl")
APT = b"""#!/bin/sh
# A stand-in for apt, which has its directory of sources: notes what it is asked for.
echo "$@" >> /var/log/apt-asked
"""


@functools.cache
def python_base() -> Path:
    """A root file system with Debian's Python, `useradd` and a stand-in for `apt-get`: a `.tar.zst`, made once."""
    cache = demo_cache()
    output = cache / "python-base.tar.zst"
    debs = Apt(cache / "work", print).fetch((*DEBS, *PYTHON_DEBS, *USER_DEBS))
    key = hashlib.sha256("".join(deb.sha256 for deb in debs.values()).encode() + APT).hexdigest()
    mark = output.with_name(f"{output.name}.key")
    if not output.exists() or not mark.exists() or mark.read_text() != key:
        nodes = root_file_system(debs)
        nodes |= loader_cache(nodes, print)
        nodes["usr/bin/apt-get"] = tree.file(APT, 0o755)
        nodes |= {place: tree.directory() for place in ("etc/apt", "etc/apt/sources.list.d")}
        output.write_bytes(tree.tar_zst_bytes(nodes, mtime=int(WHEN.timestamp())))
        mark.write_text(key)
    return output


@dataclass
class Lab:
    """A clone of the example whose images need nothing from outside; its files may be changed and committed."""

    root: Path
    log: RecordingLog = field(default_factory=RecordingLog)
    more: Mapping[str, str] = field(default_factory=dict)
    """Further variables of commands."""

    @property
    def project(self) -> Project:
        return open_project(self.root)

    @property
    def environ(self) -> dict[str, str]:
        """What commands know: the machine's container engine, a cache of their own, a git identity."""
        kept = {key: value for key, value in os.environ.items() if key.startswith("DOCKER") or key in {"PATH", "HOME"}}
        return {**kept, **IDENTITY, "LOCKYARD_CACHE_DIR": str(self.root.with_name("cache")), **self.more}

    @property
    def toolbox(self) -> Toolbox:
        return make_toolbox(self.log, self.environ)

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.root), *words], check=True, capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], **IDENTITY},
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, message: str = "change") -> str:
        self.git("add", "-A")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def edit(self, path: str, old: str, new: str) -> None:
        place = self.root / path
        text = place.read_text()
        assert old in text
        place.write_text(text.replace(old, new))

    def remove_image(self, name: str) -> None:
        """Remove an image from the container engine."""
        with contextlib.closing(self.toolbox.containers()) as containers:
            containers.remove_image(name)

    def bump(self, version: str) -> None:
        """Write a version into its copies, generate, commit and tag."""
        old = str(self.project.version)
        for path in ("pyproject.toml", "runtimes.yaml", "src/labservice/__init__.py", "README.md"):
            self.edit(path, old, version)
        self.generate()
        self.commit(version)
        self.git("tag", f"v{version}")

    def generate(self) -> None:
        from lockyard.app.runtimes import generate

        generate(self.project)


IDENTITY = {
    **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "Lab"), ("EMAIL", "lab@example.com"))},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_DATE": "1767225600 +0000",
    "GIT_COMMITTER_DATE": "1767225600 +0000",
}  # fmt: skip


def make_lab(place: Path, *, template: str | None = None, base: Path | None = None) -> Lab:
    """Clone the example and commit it: packages come from wheels beside it, images begin from the root file system `base`.

    Without `base` they begin from a layout with next to nothing in it. With `template` all have this base template.
    """
    root = place / "labservice"
    shutil.copytree(
        EXAMPLE, root, ignore=shutil.ignore_patterns("out", "dist", ".lockyard", "__pycache__", "Dockerfile.*")
    )
    lab = Lab(root)
    fill(root / "wheels", *CLIENT, *SERVER)
    for name, packages in {"all": (*CLIENT, *SERVER), "client": CLIENT}.items():
        path = root / "requirements" / f"requirements_{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(locked(root / "wheels", packages))
    image = "rootfs:base.tar.zst" if base else "oci:base"
    lab.edit("runtimes.yaml", "image: docker.io/library/python:3.12-slim-bookworm", f"image: {image}\nwheels: wheels")
    lab.edit("runtimes.yaml", "    image: docker.io/nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04\n", "")
    if template is not None:
        lab.edit("runtimes.yaml", "    base_template: generic\n", "")
        lab.edit("runtimes.yaml", "\nruntimes:\n", f"base_template: {template}\n\nruntimes:\n")
    with (root / ".gitignore").open("a") as stream:
        stream.write("/base.tar.zst\n/base/\n/wheels/\n/registry/\n")
    if base is not None:
        shutil.copy(base, root / "base.tar.zst")
    else:
        write_base(root / "base", place)
    lab.git("init", "--quiet", "--initial-branch=main")
    lab.generate()
    lab.commit("labservice")
    lab.git("tag", "v0.1.0")
    return lab


def write_base(layout: Path, place: Path, seed: str = "base") -> None:
    """Write an image with one file as an OCI layout."""
    layer, path = real_layer(place / "blobs", seed, 2000)
    config = {**oci_platform("linux-64"), "config": {}, "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id)]}}
    write_layout(layout, Image.of(config, [layer]), {layer.descriptor.digest: path})


def locked(wheels: Path, packages: Sequence[str]) -> str:
    """Requirements with hashes of wheels."""
    lines = []
    for name in packages:
        (path,) = wheels.glob(f"{name.replace('-', '_')}-*.whl")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{name}=={path.name.split('-')[1]} --hash=sha256:{digest}\n")
    return "".join(lines)


def inside(lab: Lab, layout: Path, *argv: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command in a built image and return what it says."""
    from lockyard.ports.containers import RunRequest

    with lab.toolbox.sandbox(layout) as runner:
        done = runner.run(RunRequest(argv=argv, env=env or {}, timeout=60))
    assert done.exit_code == 0, done.output
    return done.output.strip()


def docker(lab: Lab, *args: str, env: Mapping[str, str] | None = None) -> str:
    """Call Debian's docker, and return what it says."""
    program = shutil.which("docker", path="/usr/bin") or "docker"
    done = subprocess.run(
        [program, *args], env={**lab.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
