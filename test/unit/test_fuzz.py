"""Whatever bytes a person's file holds: it is read, or refused by one of our errors. Never a traceback."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lockyard.app.workspace import decode
from lockyard.artifacts.plan import plan_release
from lockyard.artifacts.request import ReleaseRequest, TemplateSources
from lockyard.conda.bounds import solver_spec, upper_bound
from lockyard.conda.spec import parse_env_in
from lockyard.distribution import parse_distribution, parse_line
from lockyard.errors import LockyardError
from lockyard.templates import render
from lockyard.tree import File, Tree
from lockyard.version import Bump, Version, bump, parse_identifier, release_dir
from support.fuzz import mutated
from support.releases import ENV_IN, LINE_SOURCE, VARIANTS, distribution, env_out, line, release

T = TypeVar("T")
SPECS = (
    b"# This file is auto-generated.\nconda-forge::numpy[version='>=1.26.4,<1.27.0']\npython=3.11=h0_0\n",
    b"pytorch[version='>=2,<3',build='*cuda*',build_number='>=3']\nconda-forge/linux-64::a >=1.2 *_cpython\n",
    b"@EXPLICIT\nhttps://conda.anaconda.org/conda-forge/linux-64/a-1.0-h0_0.conda#b9c9b2f494533250a9eb7ece830f4422\n",
    b"a[version='(>=1,<2)|3.*|~=4.1|==5|!=6']\nb[md5=b9c9b2f494533250a9eb7ece830f4422]\nc=$CUDA\nd=${CUDA}\n",
)
LINES = (
    VARIANTS.encode(),
    (
        b"schema = 1\nchannels = ['conda-forge', 'file:c']\nassets = ['a/b']\nremoved_packages = ['x']\nprefix = '/opt/conda'\n"
        b"owner = '0:0'\n[platform-packages]\nmkl = ['linux-64']\n[policies]\npython = 'pythonesque'\n'cuda-*' = 'pinned'\n"
        b"[variants.cpu]\nbase = 'oci:dir'\nplatforms = ['linux-64']\nvirtual-packages = { __glibc = '2.36' }\n"
        b"args = { A = { env = 'A', default = '' } }\npytest-flags = ['-x']\ntag = '{version}-cpu'\n"
        b"[variants.cpu.platform.linux-aarch64]\nbase = 'scratch'\n"
    ),
)
TABLES = (
    (
        b"name = 'small'\nimage = 'localhost/small'\ntitle = 'Small'\n[repositories]\nmain = 'r.example/a'\n"
        b"stage = { uri = 'r.example/b', stage = true }\n[support]\nmajor = 12\nminor = 6\n"
    ),
    b"[tool.lockyard]\nname = 'small'\n[project]\nname = 'x'\n",
)
TEMPLATES = (
    b"FROM {{ image }}:{{ version }}\n{% for t in types %}LABEL {{ t }}={{ packages[t].numpy.version }}\n{% endfor %}{# c #}",
    b"{% macro m(a) %}{{ a|upper }}{% endmacro %}{{ m(name) }}{% if major > 1 %}x{% else %}{{ minor + patch }}{% endif %}",
)
REQUEST = ReleaseRequest(
    base=Version(1, 4, 0),
    version=Version(1, 4, 1),
    bump=Bump.PATCH,
    distribution=distribution(),
    line=line(),
    line_source=LINE_SOURCE,
    base_tree=release(),
    templates=TemplateSources(),
)


def read(function: Callable[[], T]) -> T | LockyardError:
    """What a parser returns, or its refusal; any other exception ends the test."""
    try:
        return function()
    except LockyardError as error:
        return error


@given(mutated(*SPECS))
@example(b"https://[/linux-64/a-1-0.conda")
@example(b"a[version='((((((1']")
def test_spec_files(data: bytes) -> None:
    """What is read is written so that it is read the same again; the solver's form of it is one, too."""
    found = read(lambda: parse_env_in(decode(data, "f"), source="f", variables={"CUDA": "12.6"}))
    if isinstance(found, LockyardError):
        assert found.message.startswith("f:")
        assert "\n" not in found.message
        return
    for item in found.lines:
        assert parse_env_in(str(item.spec), source="again").specs == (item.spec,)
        assert parse_env_in(str(solver_spec(item.spec)), source="asked").specs[0].name == item.spec.name


@pytest.mark.parametrize(
    "name", ["env.in", "pinned_env.in", "arg_based_env.in", "additional_packages_env.in", "env.out"]
)
@given(data=mutated(*SPECS, ENV_IN.encode(), env_out().encode()))
def test_files_of_a_release(name: str, data: bytes) -> None:
    """A refusal names the file; a plan's spec file is one that is read."""
    path = f"cpu.{name}"
    base = REQUEST.base_tree if name.startswith("additional") else REQUEST.base_tree.merge({path: File(data)})
    target = Tree({path: File(data)}) if name.startswith("additional") else Tree()
    plan = read(lambda: plan_release(dataclasses.replace(REQUEST, base_tree=base, target_tree=target)))
    if isinstance(plan, LockyardError):
        assert "/cpu.env." in plan.message or path in plan.message
        return
    text = plan.tree["cpu.env.in"].data.decode()
    assert len(parse_env_in(text, source="again").lines) == text.count("\n") - 1


@given(mutated(*LINES))
@example(b"schema = 1\nvariants = 3")
@example(b"variants = [[{}]]")
def test_variants(data: bytes) -> None:
    found = read(lambda: parse_line(decode(data, LINE_SOURCE), source=LINE_SOURCE))
    assert found.message.startswith(LINE_SOURCE) if isinstance(found, LockyardError) else found.types


@given(mutated(*TABLES), st.sampled_from(["lockyard.toml", "pyproject.toml"]))
@example(b"tool = 1", "pyproject.toml")
@example(b"tool = 1", "lockyard.toml")
@example(b"tool = { lockyard = 3 }", "pyproject.toml")
@example(b"name = 'small'\nimage = 'ocalhost/small'", "lockyard.toml")
def test_configuration(data: bytes, source: str) -> None:
    found = read(lambda: parse_distribution(decode(data, source), source=source))
    assert found.message.startswith(source) if isinstance(found, LockyardError) else found.name


@given(mutated(*TEMPLATES))
def test_templates(data: bytes) -> None:
    values = {"image": "i", "version": "1.0.0", "types": ["cpu"], "packages": {}, "name": "n", "major": 1, "minor": 2}
    found = read(lambda: render(decode(data, "f.j2"), {**values, "patch": 3}, source="f.j2"))
    assert isinstance(found, str) or found.message.startswith("f.j2:")


@given(mutated(b"1.4.2", b"1.4.2-beta.1", b"beta.1", b"rc-1.0.x"))
def test_versions_and_identifiers(data: bytes) -> None:
    """As the command line gives them. What is accepted is a plain path and comes back from its text."""
    text = data.decode(errors="surrogateescape")
    for version in (read(lambda: Version.parse(text)), read(lambda: bump(Version(1, 4, 0), Bump.PATCH, text))):
        if isinstance(version, Version):
            assert Version.parse(str(version)) == version
            assert ".." not in release_dir(version).parts
            assert not version.pre or parse_identifier(".".join(version.pre)) == version.pre


@given(mutated(b"1.2.3", b"2024a", b"1!2.3.4.5+local.1", b"1.2.post1", b"20230101", b"v1.0rc1"), st.sampled_from(Bump))
def test_conda_versions(data: bytes, part: Bump) -> None:
    found = read(lambda: upper_bound(data.decode(errors="surrogateescape"), part))
    assert not isinstance(found, LockyardError) or "is not a conda version" in found.message
