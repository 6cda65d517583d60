"""Dockerfiles for container engines: kinds, engines, arguments, contexts."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.conda.lock import LockedPackage
from lockyard.errors import BuildError
from lockyard.oci.classic import (
    bases_of,
    check_arguments,
    choose_engine,
    classic_context,
    context_entries,
    dockerfile_of,
    locked_env_in,
    movable_steps,
)
from lockyard.oci.instructions import kind_of, parse
from lockyard.oci.tar import write_tar
from lockyard.tree import File, Tree

NUMPY = LockedPackage(
    name="numpy", version="2.2.1", build="py311h0_0", channel="conda-forge", subdir="linux-64",
    url="https://conda.anaconda.org/conda-forge/linux-64/numpy-2.2.1-py311h0_0.conda",
)  # fmt: skip
FINISH = "ARG ENV_IMAGE\nFROM ${ENV_IMAGE}\n"
CLASSIC = "ARG BASE=ubuntu\nFROM $BASE:24.04\nARG ENV_IN_FILENAME\nRUN install ${ENV_IN_FILENAME}\n"


@pytest.mark.parametrize(
    ("text", "asked", "engine", "why"),
    [
        ("", "auto", "native", "there is no Dockerfile"),
        (FINISH, "auto", "native", "nothing here needs a container"),
        ("", "buildkit", "native", "there is no Dockerfile"),
        (FINISH + "RUN true\n", "auto", "docker", "D:3 has RUN"),
        (CLASSIC, "auto", "docker", "D is a classic Dockerfile"),
        ("FROM earlier:1\nRUN true\n", "auto", "docker", "D is a derived Dockerfile"),
        (FINISH, "docker", "docker", "--engine docker"),
        (FINISH, "native", "native", "--engine native"),
    ],
)
def test_an_engine_is_chosen(text: str, asked: str, engine: str, why: str) -> None:
    instructions = parse(text, "D")
    assert choose_engine(asked, kind_of(instructions) if text else None, instructions) == (engine, why)


@pytest.mark.parametrize(
    ("text", "message"),
    [(FINISH + "RUN true\n", "^D:3: RUN needs a container"), (CLASSIC, "^D is a classic Dockerfile, which needs")],
)
def test_native_refuses_what_it_cannot(text: str, message: str) -> None:
    instructions = parse(text, "D")
    with pytest.raises(BuildError, match=message):
        choose_engine("native", kind_of(instructions), instructions)


def test_a_type_may_have_a_dockerfile_of_its_own() -> None:
    tree = Tree({"Dockerfile": File(b""), "Dockerfile-gpu.patch": File(b"")})
    assert dockerfile_of(tree, "gpu") == "Dockerfile-gpu.patch"
    assert dockerfile_of(tree, "cpu") == "Dockerfile"
    assert dockerfile_of(Tree(), "cpu") is None


def test_a_classic_dockerfile_gets_the_lock_as_specs() -> None:
    tree = Tree({name: File(b"") for name in ("cpu.env.in", "cpu.pinned_env.in", "cpu.arg_based_env.in")})
    files, args = classic_context(tree, "cpu", (NUMPY,))
    assert files["cpu.locked_env.in"].data == b"conda-forge::numpy[version='==2.2.1',build='py311h0_0']\n"
    assert args == {"ENV_IN_FILENAME": "cpu.locked_env.in", "PINNED_ENV_IN_FILENAME": "cpu.pinned_env.in"}
    files, args = classic_context(tree, "cpu", None)
    assert files == tree
    assert args["ENV_IN_FILENAME"] == "cpu.env.in"
    assert args["ARG_BASED_ENV_IN_FILENAME"] == "cpu.arg_based_env.in"
    assert locked_env_in(()) == b""


@pytest.mark.parametrize(
    "name", ["PIP_TOKEN", "password", "MY_SECRET_VALUE", "AWS_ACCESS_KEY", "api-key".replace("-", "_")]
)
def test_secrets_are_no_arguments(name: str) -> None:
    with pytest.raises(BuildError, match=name):
        check_arguments(["IMAGE_VERSION", name])


def test_ordinary_arguments_pass() -> None:
    check_arguments(["IMAGE_VERSION", "CUDA_MAJOR_MINOR_VERSION", "TOKENIZERS_VERSION", "KEYBOARD"])


def test_bases_are_named_with_their_line() -> None:
    text = "ARG TAG=1\nFROM ubuntu:$TAG AS one\nFROM --platform=linux/amd64 debian:12\nFROM one\nFROM scratch\n"
    assert bases_of(parse(text, "D"), {}) == (("ubuntu:1", "D:2"), ("debian:12", "D:3"))
    assert bases_of(parse(text, "D"), {"TAG": "2"}) == (("ubuntu:2", "D:2"), ("debian:12", "D:3"))
    with pytest.raises(BuildError, match="D:2: FROM"):
        bases_of(parse("ARG X\nFROM $X\n", "D"), {})


def test_steps_of_the_operating_system_could_move() -> None:
    text = FINISH + "RUN apt-get update\nRUN pip list\nRUN groupadd x && useradd y\n"
    assert movable_steps(parse(text, "D")) == ("D:3", "D:5")


@given(
    st.dictionaries(
        st.lists(st.sampled_from(["a", "b", "c.txt", "é"]), min_size=1, max_size=3).map("/".join),
        st.tuples(st.binary(max_size=20), st.sampled_from([0o600, 0o644, 0o755, 0o777])),
        max_size=6,
    )
)
def test_a_context_is_one_tar_whatever_the_modes(files: dict[str, tuple[bytes, int]]) -> None:
    kept = {path: file for path, file in files.items() if not any(other.startswith(f"{path}/") for other in files)}
    blocks: list[bytes] = []
    write_tar(
        context_entries(Tree({path: File(data, mode) for path, (data, mode) in kept.items()})),
        lambda block: blocks.append(bytes(block)),
    )
    with tarfile.open(fileobj=io.BytesIO(b"".join(blocks))) as archive:
        members = archive.getmembers()
        there = {member.name: (member.mode, member.mtime, member.uid) for member in members if member.isfile()}
    assert there == {path: (0o755 if mode & 0o111 else 0o644, 315532800, 0) for path, (_, mode) in kept.items()}
    assert len({member.name for member in members}) == len(members)
