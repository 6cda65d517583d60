"""What existing files tell: any text is read without a failure, nothing is run, every line is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.adoption.dockerfiles import read_dockerfile
from lockyard.adoption.generator import read_json, read_python
from lockyard.adoption.reproduce import bump_between
from lockyard.adoption.suites import read_harness
from lockyard.version import Bump, Version, bump
from support.adoptable import CLASSIC, CONFIG, DERIVED, FINISH, HARNESS

_words = st.sampled_from(
    ["FROM", "ARG", "RUN", "COPY", "ADD", "ONBUILD", "AS", "$A", "${ENV_IMAGE}", "ENV_IN_FILENAME", "A=1", "'", '"', "\\",
     "\n", " ", "=", "<<EOF", "--from=x", "https://x/y", "#", "[", "\t"]
)  # fmt: skip
dockerfiles = st.lists(_words, max_size=14).map(" ".join)
pythons = st.lists(
    st.sampled_from(
        ["{", "}", "[", "]", '"build_args"', '"image_type"', ":", ",", "1", '"cpu"', "\n", "x", "(", ")", "-"]
    ),
    max_size=14,
).map("".join)


@pytest.mark.parametrize(("text", "kind"), [(CLASSIC, "classic"), (FINISH, "finish"), (DERIVED, "derived")])
def test_kinds(text: str, kind: str) -> None:
    assert read_dockerfile(text, "Dockerfile").kind == kind


def test_arguments_and_bases() -> None:
    found = read_dockerfile(CLASSIC, "template/v1/Dockerfile")
    assert found.open == ("TAG_FOR_BASE",)
    assert found.defaults == {"NB_USER": "jovyan", "NB_UID": "1000"}
    (base,) = found.bases
    assert (base.where, base.arguments) == ("template/v1/Dockerfile:2", ("TAG_FOR_BASE",))
    assert base.resolve({"TAG_FOR_BASE": "jammy"}) == "mambaorg/micromamba:jammy"
    assert base.resolve({}) is None
    assert base.resolve({"TAG_FOR_BASE": ""}) is None


def test_stages_are_no_bases() -> None:
    text = "FROM docker.io/library/debian:12 AS one\nFROM one\nFROM scratch\nFROM --platform=linux/amd64 ubuntu:24.04\n"
    found = read_dockerfile(text, "D")
    assert [base.text for base in found.bases] == ["docker.io/library/debian:12", "ubuntu:24.04"]
    assert [blocker.where for blocker in found.blockers] == ["D:1", "D:2", "D:3", "D:4"]


def test_what_does_not_parse_is_a_blocker() -> None:
    found = read_dockerfile("ARG ENV_IN_FILENAME\nFROM a\nRUN <<EOF\necho\nEOF\n", "D")
    assert (found.kind, [item.where for item in found.blockers]) == ("classic", ["D:3"])
    assert "here-documents" in found.blockers[0].what


@given(dockerfiles)
def test_any_dockerfile_is_read(text: str) -> None:
    """Whatever stands there, each blocker names a line of the file."""
    for blocker in read_dockerfile(text, "D").blockers:
        assert blocker.where.startswith("D:")
        assert 1 <= int(blocker.where.partition(":")[2]) <= text.count("\n") + 1


def test_a_generators_literals() -> None:
    """Python is read, never run; what is computed tells nothing."""
    cpu, gpu, bare = read_python(CONFIG, "src/config.py")
    assert (cpu.major, cpu.image_type, cpu.where) == (1, "cpu", "src/config.py:5")
    assert (gpu.tag, gpu.pytest_flags) == ("{version}-cuda", ("--use-gpu",))
    assert (bare.major, bare.image_type, dict(bare.args)) == (2, "cpu", {"ENV_IN_FILENAME": "cpu.env.in"})


@given(pythons)
def test_any_python_is_read(text: str) -> None:
    assert isinstance(read_python(text, "a.py"), tuple)
    assert isinstance(read_harness(text, {"cpu"}), tuple)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gpu_cuda_version.json", '{"TAG": "x", "CUDA": "12.6"}', {"TAG": "x", "CUDA": "12.6"}),
        ("gpu.args.json", '{"TAG": "x"}', {"TAG": "x"}),
        ("gpu.lock.json", '{"schema": 1}', None),
        ("gpu_x.json", '{"TAG": "x", "other": 1}', None),
        ("gpus.json", '{"TAG": "x"}', None),
        ("gpu_x.json", "[", None),
        ("gpu_x.json", "{}", None),
    ],
)
def test_files_of_values(name: str, text: str, expected: dict[str, str] | None) -> None:
    found = read_json(text, f"template/v1/{name}", ("cpu", "gpu"))
    assert (dict(found.args) if found is not None else None) == expected


def test_a_harness() -> None:
    found = {item.file: item for item in read_harness(HARNESS, {"cpu", "gpu"})}
    assert found["numpy.test.Dockerfile"].types == ()
    assert found["lsp.test.Dockerfile"].types == ("cpu",)
    assert found["lsp.test.Dockerfile"].packages == ("jupyterlab", "lsp")


_small = st.integers(0, 3)
finals = st.builds(Version, _small, _small, _small)


@given(finals, st.sampled_from(list(Bump)), st.sampled_from([None, "beta", "rc.1"]))
def test_the_bump_between_is_the_bump(base: Version, part: Bump, identifier: str | None) -> None:
    assert bump_between(base, bump(base, part, identifier)) is part


def test_no_bump_between() -> None:
    assert bump_between(Version.parse("1.4.0"), Version.parse("1.4.2")) is None
    assert bump_between(Version.parse("1.4.0-rc.1"), Version.parse("1.4.0")) is None
