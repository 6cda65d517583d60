"""runtimes.yaml: what is read, what is refused, on which line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.errors import ConfigError
from lockyard.pyrelease.runtimes import CUDA_REPOSITORY, User, parse_runtimes

TOP = "schema: 1\npkg_version: 1.2.0\nimage: localhost/base:1\nrequirements: requirements/all.txt\n"
ONE = f"{TOP}runtimes:\n  all: {{}}\n"


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_runtimes(text)
    return caught.value


def entry(*lines: str) -> str:
    return f"{TOP}runtimes:\n  client:\n" + "".join(f"    {line}\n" for line in lines)


def test_defaults() -> None:
    (runtime,) = parse_runtimes(ONE).chosen()
    assert (runtime.name, runtime.image, runtime.requirements) == ("all", "localhost/base:1", "requirements/all.txt")
    assert (runtime.user.uid, runtime.user.gid, runtime.user.name) == (1089, 1090, "app")
    assert (runtime.base_template, runtime.volumes, runtime.gpu) == ("default", ("/data",), None)
    assert (runtime.suffix, runtime.dockerfile) == ("", "Dockerfile.all")


def test_an_own_value_replaces_the_one_at_the_top() -> None:
    text = (
        f"{TOP}user: {{uid: 7}}\nvolumes: [/a]\nfinal_packages: [tini]\nruntimes:\n  one: {{}}\n"
        "  two:\n    user: {gid: 8}\n    volumes: []\n    final_packages: [git]\n"
    )
    one, two = parse_runtimes(text).chosen()
    assert (one.user, one.volumes, one.final_packages) == (User(uid=7), ("/a",), ("tini",))
    assert (two.user, two.volumes, two.final_packages) == (User(gid=8), (), ("git",))


def test_a_gpu() -> None:
    text = entry("extra: client", 'gpu: {cuda: "12.9.1", cudnn: "9.1", key: keys/cuda.asc}')
    (runtime,) = parse_runtimes(text.replace("client:", "client-gpu:")).chosen()
    assert runtime.gpu is not None
    assert (runtime.extra, runtime.gpu.minor, runtime.gpu.repository) == (("client",), "12.9", CUDA_REPOSITORY)


@pytest.mark.parametrize(
    ("name", "gpu", "suffix"),
    [
        ("all", False, ""),
        ("client", False, "-client"),
        ("client-gpu", True, "-client-cuda12.9"),
        ("gpu", True, "-cuda12.9"),
        ("server", True, "-server-cuda12.9"),
    ],
)
def test_what_tags_have_behind_the_version(name: str, gpu: bool, suffix: str) -> None:
    text = f"{TOP}runtimes:\n  {name}:\n    " + ('gpu: {cuda: "12.9"}\n' if gpu else "extra: []\n")
    assert parse_runtimes(text).chosen()[0].suffix == suffix


def test_the_lines_of_keys() -> None:
    text = entry("extra: client", "base_template: internal")
    (runtime,) = parse_runtimes(text, source="r.yaml").chosen()
    assert runtime.where("base_template") == "r.yaml:8"
    assert runtime.where("image") == "r.yaml:3"
    assert runtime.where("wheels") == runtime.where() == "r.yaml:6"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "runtimes.yaml:1: not a map of keys"),
        ("- 1\n", "runtimes.yaml:1: not a map of keys"),
        ("schema: 1\n  a: [\n", "runtimes.yaml:2: "),
        ("schema: 1\nschema: 1\n", "runtimes.yaml:2: found duplicate key"),
        ("schema: 9\n", "runtimes.yaml:1: schema 9 is newer than this Lockyard knows (1)"),
        (TOP, "runtimes.yaml:1: 'runtimes' is missing"),
        (f"{TOP}runtimes: {{}}\n", "runtimes.yaml:5: runtimes: "),
        (f"{TOP}runtimes:\n  Client: {{}}\n", "runtimes.yaml:5: runtimes: 'Client': use lower-case letters"),
        (f"{ONE}registri: x\n", "runtimes.yaml:7: unknown key 'registri'; did you mean 'registry'?"),
        (entry("extras: client"), "runtimes.yaml:7: unknown key 'runtimes.client.extras'; did you mean 'extra'?"),
        (entry("user: {uidd: 3}"), "runtimes.yaml:7: unknown key 'runtimes.client.user.uidd'; did you mean 'uid'?"),
        (
            entry("gpu: {cuda: 12.10}"),
            "runtimes.yaml:7: runtimes.client.gpu.cuda: 12.1 is a number in YAML: write it in",
        ),
        (entry('gpu: {cuda: "12"}'), "runtimes.yaml:7: runtimes.client.gpu.cuda: "),
        (entry("gpu: {}"), "runtimes.yaml:7: 'runtimes.client.gpu.cuda' is missing"),
        (entry('gpu: {cuda: "12.4", key: a.pub}'), "runtimes.yaml:7: runtimes.client.gpu.key: 'a.pub': apt reads .asc"),
        (entry('gpu: {cuda: "12.4", repository: "ftp://x"}'), "runtimes.yaml:7: runtimes.client.gpu.repository: "),
        (entry("user: {uid: 0}"), "runtimes.yaml:7: runtimes.client.user.uid: "),
        (entry('user: {uid: "7"}'), "runtimes.yaml:7: runtimes.client.user.uid: "),
        (entry("user: {name: 'a b'}"), "runtimes.yaml:7: runtimes.client.user.name: "),
        (entry("image: 'Not An Image'"), "runtimes.yaml:7: runtimes.client.image: "),
        (entry("image: oci:../x"), "runtimes.yaml:7: runtimes.client.image: "),
        (entry("requirements: ../x"), "runtimes.yaml:7: runtimes.client.requirements: '../x' is not a plain relative"),
        (entry("requirements: a b"), "runtimes.yaml:7: runtimes.client.requirements: "),
        (entry("maintainer: 'a \"b\"'"), "runtimes.yaml:7: runtimes.client.maintainer: "),
        (entry("build_packages:", "- gcc", "- gcc; rm -rf /"), "runtimes.yaml:9: runtimes.client.build_packages.1: "),
        (entry("volumes: [data]"), "runtimes.yaml:7: runtimes.client.volumes.0: 'data' is not an absolute path"),
        (entry("volumes: [/a/../b]"), "runtimes.yaml:7: runtimes.client.volumes.0: "),
        (entry("command: []"), "runtimes.yaml:7: runtimes.client.command: "),
        (entry("command: labservice"), "runtimes.yaml:7: runtimes.client.command: "),
        (entry("registry: a b"), "runtimes.yaml:7: runtimes.client.registry: "),
        (entry("registry: host/name:tag"), "runtimes.yaml:7: runtimes.client.registry: "),
        (entry("version: one"), "runtimes.yaml:7: runtimes.client.version: 'one' is not a version (PEP 440)"),
        (ONE.replace("1.2.0", "1.2"), "runtimes.yaml:2: pkg_version: 1.2 is a number in YAML: write it in quotes"),
        (
            "schema: 1\npkg_version: 1.2.0\nruntimes:\n  all: {}\n",
            "runtimes.yaml:4: runtimes.all: 'image' is missing here and at the top",
        ),
        (
            f'{TOP}runtimes:\n  client: {{gpu: {{cuda: "12.4"}}}}\n  client-gpu: {{gpu: {{cuda: "12.4.1"}}}}\n',
            "runtimes.yaml:7: runtimes client and client-gpu would have the same tag VERSION-client-cuda12.4",
        ),
    ],
)
def test_refused(text: str, message: str) -> None:
    assert refused(text).message.startswith(message)


def test_all_problems_are_told() -> None:
    error = refused(entry("extras: client", "gpu: {}", "user: {uid: 0}"))
    assert len(error.details) == 2
    assert error.exit_code == 2


def test_an_unknown_runtime() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_runtimes(ONE).chosen(("al",))
    assert caught.value.message == "runtimes.yaml has no runtime 'al'; there are all"
    assert caught.value.hint == "did you mean 'all'?"


def test_chosen_keeps_the_order_asked_for_and_drops_doubles() -> None:
    found = parse_runtimes(f"{TOP}runtimes:\n  a: {{}}\n  b: {{}}\n")
    assert [item.name for item in found.chosen(("b", "a", "b"))] == ["b", "a"]


LINES = [*TOP.splitlines(), "runtimes:", "  a: {}", "  a:", "    gpu: 3", "    user: [1]", "? [", "- x", "  : y"]


@given(st.text(max_size=40) | st.lists(st.sampled_from(LINES), max_size=8).map("\n".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_runtimes(text)
    except ConfigError as error:
        message = error.message
    else:
        message = "runtimes.yaml is read"
    assert message.startswith("runtimes.yaml")
