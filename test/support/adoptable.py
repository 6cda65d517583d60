"""An existing tree of releases as an earlier generator left it: two major lines, Dockerfiles, its own files of values and tests."""

from collections.abc import Mapping
from pathlib import Path

from support.index import record, write_index
from support.releases import env_out

FIRST = {"python": "3.11.9", "numpy": "2.2.1", "cuda-version": "12.4"}
SECOND = {"python": "3.11.10", "numpy": "2.2.3", "cuda-version": "12.4"}
THIRD = {"python": "3.12.1", "numpy": "2.3.0", "cuda-version": "12.6"}

CLASSIC = """\
ARG TAG_FOR_BASE
FROM mambaorg/micromamba:$TAG_FOR_BASE

ARG CUDA_MAJOR_MINOR_VERSION=''
ARG ENV_IN_FILENAME
ARG PINNED_ENV_IN_FILENAME
ARG ARG_BASED_ENV_IN_FILENAME
ARG IMAGE_VERSION
ARG NB_USER="jovyan" NB_UID=1000

USER root
RUN apt-get update && \\
    apt-get install -y git

# The environment.
COPY --chown=$MAMBA_USER:$MAMBA_USER $ENV_IN_FILENAME *.in /tmp/
RUN micromamba install -y --name base --file /tmp/$ENV_IN_FILENAME
RUN jupyter labextension disable something
ADD https://example.com/tool.tar.gz /opt/
COPY --from=docker.io/library/busybox:1 /bin/busybox /usr/local/bin/
"""
FINISH = """\
ARG ENV_IMAGE
FROM ${ENV_IMAGE}
ENV EDITOR=nano
COPY dirs/ /
"""
DERIVED = """\
FROM registry.example.com/images/base:1.1.1-gpu
RUN pip install one==1.0
"""
CONFIG = """\
import os
raise RuntimeError("nobody runs this")
_image_generator_configs = {
    1: [
        {"image_type": "cpu", "build_args": {"TAG_FOR_BASE": "jammy", "ENV_IN_FILENAME": "cpu.env.in"}},
        {
            "image_type": "gpu",
            "build_args": {"TAG_FOR_BASE": "jammy-cuda-12.4.1", "CUDA_MAJOR_MINOR_VERSION": "12.4"},
            "pytest_flags": ["--use-gpu"],
            "image_tag_generator": "{image_version}-cuda",
        },
    ],
    2: [{"build_args": {"ENV_IN_FILENAME": "cpu.env.in", "COMPUTED": os.name}}],
}
"""
HARNESS = """\
import pytest
import docker_that_is_not_here

@pytest.mark.cpu
@pytest.mark.parametrize("dockerfile_path, required_packages", [
    ("numpy.test.Dockerfile", ["numpy"]),
    ("lsp.test.Dockerfile", ["jupyterlab", "lsp"]),
    ("torch.examples.Dockerfile", ["pytorch"]),
])
def test_cpu(dockerfile_path, required_packages): ...

@pytest.mark.gpu
@pytest.mark.parametrize("dockerfile_path, required_packages", [("numpy.test.Dockerfile", ["numpy"])])
def test_gpu(dockerfile_path, required_packages): ...
"""
IMAGE_TEST = 'ARG DISTRIBUTION_IMAGE\nFROM $DISTRIBUTION_IMAGE\nCMD ["python", "-c", "import numpy"]\n'


def specs(**bounds: str) -> str:
    """A generated spec file; underscores in names stand for hyphens."""
    rows = [f"conda-forge::{name.replace('_', '-')}[version='{bound}']" for name, bound in bounds.items()]
    return "\n".join(["# This file is auto-generated.", *rows, ""])


def write_adoptable(root: Path) -> Path:
    """Write the tree."""
    wanted = "conda-forge::python\nconda-forge::numpy"  # no final newline, as first releases have it
    patched = specs(python=">=3.11.9,<3.12.0", numpy=">=2.2.1,<2.3.0")
    minor = specs(python=">=3.11.10,<3.12.0", numpy=">=2.2.3,<3.0.0")
    major = specs(python=">=3.11.10", numpy=">=2.2.3")
    releases: dict[str, dict[str, str]] = {
        "v1/v1.0/v1.0.0": both(wanted, FIRST),
        "v1/v1.0/v1.0.1": both(patched, SECOND) | {"source-version.txt": "1.0.0"},
        "v1/v1.1/v1.1.0": both(minor, SECOND) | {"source-version.txt": "1.0.1"},
        # Changed by hand after it was generated.
        "v1/v1.1/v1.1.1": both(specs(python=">=3.11.10,<3.12.0", numpy=">=2.2.3,<2.2.9"), SECOND)
        | {"source-version.txt": "1.1.0", "Dockerfile": CLASSIC, "Dockerfile-gpu.patch": DERIVED},
        "v1/v1.1/v1.1.1/v1.1.1-beta": both(specs(python=">=3.11.10,<3.12.0", numpy=">=2.2.3,<2.3.0"), SECOND)
        | {"source-version.txt": "1.1.0"},
        "v1/v1.1/v1.1.2": {"cpu.additional_packages_env.in": "conda-forge::scipy\n"},
        "v1/v1.0/v1.0.02": {"cpu.env.in": wanted},
        "v1/v1.0/v1.1.9": {"cpu.env.in": wanted},
        "v1/v1.0/v1.0.8": {"README.md": "nothing here\n"},
        "v2/v2.0/v2.0.0": both(major, THIRD)
        | {"source-version.txt": "1.1.1", "Dockerfile": FINISH, "gpu_cuda_version.json": '{"CUDA_MAJOR_MINOR_VERSION": "12.6"}\n'},
    }  # fmt: skip
    files = {
        f"build_artifacts/{place}/{name}": text for place, found in releases.items() for name, text in found.items()
    }
    files |= {
        "template/v1/Dockerfile": CLASSIC,
        "template/v2/v2.0/Dockerfile": FINISH,
        "template/v2/v2.0/dirs/etc/profile.d/welcome.sh": "echo welcome\n",
        "src/config.py": CONFIG,
        "test/test_harness.py": HARNESS,
        "test/test_artifacts/v1/numpy.test.Dockerfile": IMAGE_TEST,
        "test/test_artifacts/v1/lsp.test.Dockerfile": IMAGE_TEST,
        "test/test_artifacts/v1/torch.examples.Dockerfile": IMAGE_TEST,
        "test/test_artifacts/v1/other.test.sh": "true\n",
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def both(specs_text: str, installed: Mapping[str, str]) -> dict[str, str]:
    """The files of both image types; only the GPU one has CUDA in it."""
    plain = {name: version for name, version in installed.items() if name != "cuda-version"}
    cuda = (
        env_out(installed)
        .replace("cuda-version-", "cuda-version-")
        .replace("numpy-", "numpy-")
        .replace(f"numpy-{installed['numpy']}-h0_0", f"numpy-{installed['numpy']}-cuda_h0_0")
    )
    return {
        "cpu.env.in": specs_text, "cpu.env.out": env_out(plain),
        "gpu.env.in": specs_text, "gpu.env.out": cuda,
        "gpu.arg_based_env.in": "conda-forge::cuda-version=$CUDA_MAJOR_MINOR_VERSION\n",
    }  # fmt: skip


def write_channel(directory: Path) -> None:
    """An index in which everything that the releases hold is, and newer versions."""
    versions = {
        "python": ("3.11.9", "3.11.10", "3.11.11", "3.12.1", "3.12.2"),
        "numpy": ("2.2.1", "2.2.3", "2.2.8", "2.3.0", "2.3.5", "2.4.0"),
        "cuda-version": ("12.4", "12.6"),
        "scipy": ("1.15.0",),
    }
    builds = {"numpy": ("h0_0", "cuda_h0_0")}
    found = [
        record(name, version, subdir="linux-64", build=build, md5="0" * 32)  # as in the releases
        for name, several in versions.items()
        for version in several
        for build in builds.get(name, ("h0_0",))
    ]
    write_index(directory, found)
