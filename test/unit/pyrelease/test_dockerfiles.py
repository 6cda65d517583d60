"""Dockerfiles of runtimes: the committed ones of the example, golden ones of every base template, refusals."""

from pathlib import Path

import pytest

from lockyard.app.runtimes import templates
from lockyard.errors import ConfigError
from lockyard.pyrelease.dockerfiles import CONTEXT, context, cuda_packages, render_dockerfile
from lockyard.pyrelease.runtimes import parse_runtimes
from support.require import ROOT

EXAMPLE = ROOT / "examples" / "labservice"
GOLDEN = ROOT / "test" / "golden" / "runtimes"
TOP = "schema: 1\npkg_version: 1.2.0\nimage: localhost/base:1\nrequirements: requirements/all.txt\nruntimes:\n"


def rendered(place: Path) -> dict[str, str]:
    runtimes = parse_runtimes((place / "runtimes.yaml").read_text())
    library = templates()
    return {item.dockerfile: render_dockerfile(item, "labservice", library) for item in runtimes.chosen()}


@pytest.mark.parametrize("place", [EXAMPLE, GOLDEN], ids=["example", "golden"])
def test_the_committed_dockerfiles(place: Path) -> None:
    """`lockyard runtimes generate --all` makes them again; read the difference before committing it."""
    found = rendered(place)
    assert sorted(found) == sorted(path.name for path in place.glob("Dockerfile.*"))
    for name, text in found.items():
        assert text == (place / name).read_text(), name


def test_the_example_has_the_three_kinds() -> None:
    assert list(rendered(EXAMPLE)) == ["Dockerfile.all", "Dockerfile.client", "Dockerfile.client-gpu"]


def refused(*lines: str, own: dict[str, str] | None = None) -> ConfigError:
    text = f"{TOP}  one:\n" + "".join(f"    {line}\n" for line in lines)
    with pytest.raises(ConfigError) as caught:
        render_dockerfile(parse_runtimes(text).chosen()[0], "labservice", templates(own))
    return caught.value


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("base_template: defalt",), "runtimes.yaml:7: no base template 'defalt'; there are default, generic"),
        (("base_template: internal",), "runtimes.yaml:7: internal takes Python packages from the bundle only"),
        (
            ("base_template: internal", "wheels: wheels", "image: docker.io/library/python:3.12"),
            "runtimes.yaml:9: internal begins from a registry of your own, and 'docker.io/library/python:3.12' is",
        ),
        (("base_template: native", "final_packages: [tini]"), "runtimes.yaml:8: native runs nothing"),
        (("base_template: native", "build_packages: [gcc]"), "runtimes.yaml:8: native runs nothing"),
        (
            ("base_template: native", 'gpu: {cuda: "12.4", key: k.asc}'),
            "runtimes.yaml:8: native runs nothing, so it cannot install CUDA",
        ),
    ],
)
def test_what_base_templates_refuse(lines: tuple[str, ...], message: str) -> None:
    assert refused(*lines).message.startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM {{ imag }}\n", "own.Dockerfile.j2:1: 'imag' is undefined"),
        ("a\n{% if %}\n", "own.Dockerfile.j2:2: "),
        ('a\n{% extends "nothing.j2" %}\n', "own.Dockerfile.j2:2: no template 'nothing.j2'"),
        (
            '{% extends "default.Dockerfile.j2" %}\n{% block run %}\n{{ x }}{% endblock %}',
            "own.Dockerfile.j2:3: 'x' is",
        ),
        ('{% include "other.Dockerfile.j2" %}', "other.Dockerfile.j2:2: 'y' is undefined"),
    ],
)
def test_mistakes_in_own_templates(text: str, message: str) -> None:
    own = {"own.Dockerfile.j2": text, "other.Dockerfile.j2": "a\n{{ y }}\n"}
    assert refused("base_template: own", own=own).message.startswith(message)


def test_an_own_template_replaces_a_block() -> None:
    own = {"own.Dockerfile.j2": '{% extends "default.Dockerfile.j2" %}{% block user %}RUN mine\n{% endblock %}'}
    runtime = parse_runtimes(f"{TOP}  one:\n    base_template: own\n").chosen()[0]
    text = render_dockerfile(runtime, "labservice", templates(own))
    assert "\nRUN mine\n" in text
    assert "useradd" not in text
    assert "USER 1089:1090" in text


def test_what_templates_know_is_documented() -> None:
    runtime = parse_runtimes(f"{TOP}  one: {{}}\n").chosen()[0]
    assert set(context(runtime, "labservice")) == set(CONTEXT)


@pytest.mark.parametrize(
    ("gpu", "packages"),
    [
        ('cuda: "12.4"', ("cuda-libraries-12-4",)),
        ('cuda: "12.4.1", cudnn: "9"', ("cuda-libraries-12-4", "libcudnn9-cuda-12")),
        ('cuda: "11.8", cudnn: "8.9.7"', ("cuda-libraries-11-8", "libcudnn8-cuda-11=8.9.7*")),
    ],
)
def test_packages_of_cuda(gpu: str, packages: tuple[str, ...]) -> None:
    runtime = parse_runtimes(f"{TOP}  one:\n    gpu: {{{gpu}}}\n").chosen()[0]
    assert cuda_packages(runtime) == packages
