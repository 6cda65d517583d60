"""Lock files: what is written is read back; what is malformed, foreign or newer is refused with its line."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.conda.formats import (
    LockInputs,
    env_out_name,
    lock_from_tree,
    read_env_out,
    read_lock_json,
    write_env_out,
    write_lock_json,
)
from lockyard.conda.lock import Lock, LockedPackage, Reason
from lockyard.errors import ConfigError
from lockyard.tree import File, Tree


def locked(name: str = "numpy", version: str = "2.2.1", build: str = "py311_0", **fields: Any) -> LockedPackage:
    subdir = fields.pop("subdir", "linux-64")
    values: dict[str, Any] = {
        "url": f"file:channel/{subdir}/{name}-{version}-{build}.conda",
        "channel": "channel",
        "md5": "0" * 32,
        "sha256": "1" * 64,
        "size": 1000,
        "depends": ("python >=3.11,<3.12.0a0", "libblas"),
        **fields,
    }
    return LockedPackage(name=name, version=version, build=build, subdir=subdir, **values)


def lock(*packages: LockedPackage, **fields: Any) -> Lock:
    values: dict[str, Any] = {
        "image_type": "cpu",
        "platforms": {"linux-64": packages or (locked(),)},
        "channels": ("file:channel",),
        "virtual_packages": {"linux-64": {"__glibc": "2.36"}},
        "specs": ("numpy[version='>=2']",),
        "input_hash": "sha256:" + "a" * 64,
        "base": "1.0.0",
        "reasons": {"linux-64": (Reason("numpy", "2.2.0 py311_0", "2.2.1 py311_0", "asked"),)},
        **fields,
    }
    return Lock(**values)


NAMES = st.from_regex(r"[a-z0-9_][a-z0-9_.+-]{0,12}", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9][0-9a-z_.+!]{0,12}", fullmatch=True)
BUILDS = st.from_regex(r"[a-z0-9][a-z0-9_.]{0,12}", fullmatch=True)
LINES = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\x7f"), max_size=20)


@st.composite
def packages(draw: st.DrawFn) -> LockedPackage:
    name, version, build = draw(NAMES), draw(VERSIONS), draw(BUILDS)
    return locked(
        name,
        version,
        build,
        subdir=draw(st.sampled_from(["linux-64", "noarch"])),
        sha256=draw(st.from_regex(r"[0-9a-f]{64}", fullmatch=True) | st.none()),
        timestamp=draw(st.integers(0, 2**62) | st.none()),
        depends=tuple(draw(st.lists(LINES, max_size=3))),
        license=draw(LINES | st.none()),
        noarch=draw(st.sampled_from([None, "python", "generic"])),
        build_number=draw(st.integers(0, 10**6)),
    )


@given(st.lists(packages(), min_size=1, max_size=5, unique_by=lambda item: item.name), st.booleans())
def test_a_lock_is_read_as_it_was_written(items: list[LockedPackage], two: bool) -> None:
    platforms = {"linux-64": tuple(items)}
    if two:
        platforms = {"osx-arm64": tuple(item for item in items if item.subdir == "noarch"), **platforms}
    before = lock(platforms=platforms)
    text = write_lock_json(before)
    after = read_lock_json(text, "x")
    assert after == before
    assert after.first_platform == before.first_platform
    assert write_lock_json(after) == text


@given(st.lists(packages(), min_size=1, max_size=5, unique_by=lambda item: item.name))
def test_an_explicit_list_is_read_as_it_was_written(items: list[LockedPackage]) -> None:
    text = write_env_out(items, "linux-64")
    back = read_env_out(text, "x")
    assert [(item.url, item.md5, item.dist, item.subdir, item.channel) for item in back] == [
        (item.url, item.md5, item.dist, item.subdir, item.channel) for item in items
    ]
    assert write_env_out(back, "linux-64") == text


def test_a_lock_has_one_package_a_line_and_sorted_keys() -> None:
    text = write_lock_json(lock(locked("a"), locked("b")))
    assert sum("file:channel/" in line for line in text.splitlines()) == 2
    assert text.endswith("}\n")
    data = json.loads(text)
    assert list(data) == sorted(data)
    assert data["schema"] == 1
    assert all(list(item) == sorted(item) for item in data["packages"]["linux-64"])


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def apply(data: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        target: Any = data
        for part in parents:
            target = target[int(part) if part.isdigit() else part]
        if value is ...:
            del target[last]
        else:
            target[last] = value

    return apply


FIRST = "packages.linux-64.0"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (change("schema", 2), "schema 2 is newer"),
        (change("schema", "1"), "no schema number"),
        (change("schema", True), "no schema number"),
        (change("surprise", 1), "unknown key 'surprise'"),
        (change("channels", ...), "'channels' is missing"),
        (change("channels", ["file:../x"]), "leaves the distribution's root"),
        (change("platforms", ["linux-64", "osx-64"]), "not the same conda subdirs"),
        (change("input_hash", "md5:1"), "input_hash"),
        (change("base", "1\n2"), "base"),
        (change(f"{FIRST}.name", "../evil"), "numpy|evil"),
        (change(f"{FIRST}.name", "other"), "its address is that of"),
        (change(f"{FIRST}.version", "2.2.1/../x"), "its address is that of"),
        (change(f"{FIRST}.url", "file:channel/../../linux-64/numpy-2.2.1-py311_0.conda"), "leaves the"),
        (change(f"{FIRST}.url", "file:///etc/linux-64/numpy-2.2.1-py311_0.conda"), "below no file: channel"),
        (change(f"{FIRST}.url", "file:channel2/linux-64/numpy-2.2.1-py311_0.conda"), "below no file: channel"),
        (change(f"{FIRST}.url", "https://me:pw@h.example/c/linux-64/numpy-2.2.1-py311_0.conda"), "credentials"),
        (change(f"{FIRST}.subdir", "osx-64"), "its address is that of"),
        (change(f"{FIRST}.sha256", "1" * 63), "not a lower-case sha256"),
        (change(f"{FIRST}.md5", "A" * 32), "not a lower-case md5"),
        (change(f"{FIRST}.size", -1), "not a count"),
        (change(f"{FIRST}.size", True), "not a count"),
        (change(f"{FIRST}.depends", "python"), "not a list"),
        (change(f"{FIRST}.depends", ["a\nb"]), "not a line of text"),
        (change(f"{FIRST}.surprise", 1), "unknown key 'surprise'"),
        (change("packages.linux-64", {}), "not a list"),
        (change("reasons.linux-64", [{"name": "x"}]), "a reason is not"),
        (change("virtual_packages", []), "not an object"),
    ],
)
def test_a_malformed_lock_is_refused(edit: Callable[[dict[str, Any]], None], words: str) -> None:
    data = json.loads(write_lock_json(lock()))
    edit(data)
    with pytest.raises(ConfigError, match=words) as caught:
        read_lock_json(json.dumps(data), "cpu.lock.json")
    assert caught.value.message.startswith("cpu.lock.json:")
    assert "pw@" not in caught.value.message


def test_the_line_of_a_malformed_package_is_named() -> None:
    text = write_lock_json(lock(locked("a"), locked("b"), locked("c")))
    number = next(number for number, line in enumerate(text.splitlines(), 1) if '"name": "b"' in line)
    broken = "\n".join(
        line.replace("1" * 64, "x") if index == number else line for index, line in enumerate(text.splitlines(), 1)
    )
    with pytest.raises(ConfigError, match=rf"^cpu\.lock\.json:{number}: 'b': sha256"):
        read_lock_json(broken, "cpu.lock.json")


def test_a_package_twice_and_a_package_without_hash_are_refused() -> None:
    with pytest.raises(ConfigError, match="there twice"):
        read_lock_json(write_lock_json(lock(locked(), locked(version="2.2.2"))), "x")
    with pytest.raises(ConfigError, match="no sha256 and no md5"):
        read_lock_json(write_lock_json(lock(locked(md5=None, sha256=None))), "x")


BYTES = st.binary(max_size=300) | st.text(max_size=150).map(lambda text: text.encode("utf-8", "surrogatepass"))


@given(BYTES, st.sampled_from(["cpu.lock.json", "cpu.env.out"]), st.sampled_from([b"", b"@EXPLICIT\n"]))
def test_no_bytes_of_a_lock_file_end_in_a_traceback(data: bytes, name: str, head: bytes) -> None:
    with contextlib.suppress(ConfigError):
        lock_from_tree(Tree({name: File(head + data)}), "cpu", source="v1")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data(), VALUES)
def test_no_value_in_a_lock_file_ends_in_a_traceback(data: st.DataObject, value: object) -> None:
    """Any value of JSON in any place of a good lock: read, or refused with the file's name."""
    found = json.loads(write_lock_json(lock()))
    place: Any = found
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    if error := refused(lambda: read_lock_json(json.dumps(found), "cpu.lock.json")):
        assert error.message.startswith("cpu.lock.json:")


def refused(read: Callable[[], object]) -> ConfigError | None:
    try:
        read()
    except ConfigError as error:
        return error
    return None


def test_deep_nesting_and_huge_numbers_are_refused() -> None:
    for text in ("[" * 100_000, '{"schema": ' + "9" * 5000 + "}", '{"schema": 1e999}', '{"schema": NaN}'):
        with pytest.raises(ConfigError, match="cpu.lock.json:1: "):
            read_lock_json(text, "cpu.lock.json")


def test_an_explicit_list_of_an_adopted_release_may_have_local_addresses_and_no_hash() -> None:
    text = (
        "# platform: linux-64\n@EXPLICIT\n"
        "file:///home/me/conda-bld/linux-64/a-1.0-0.conda#" + "0" * 32 + "\n"
        "https://conda.anaconda.org/conda-forge/noarch/b-2-py_0.tar.bz2#\n"
        "https://conda.anaconda.org/conda-forge/noarch/c-3-py_4.conda#sha256:" + "a" * 64 + "\n"
    )
    a, b, c = read_env_out(text, "cpu.env.out")
    assert (a.url, a.md5) == ("file:///home/me/conda-bld/linux-64/a-1.0-0.conda", "0" * 32)
    assert (b.channel, b.md5, b.sha256) == ("conda-forge", None, None)
    assert (c.sha256, c.build_number) == ("a" * 64, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://h.example/c/noarch/b-2-py_0.conda\n", "no @EXPLICIT"),
        ("@EXPLICIT\nnumpy=1\n", "cpu.env.out:2: 'numpy=1'"),
        ("@EXPLICIT\nhttps://h.example/c/noarch/b-2-py_0.conda#xyz\n", "cpu.env.out:2: 'xyz' is neither"),
        ("@EXPLICIT\nfile:c/noarch/b-2-0.conda\nfile:c/noarch/b-3-0.conda\n", "cpu.env.out:3: b is listed twice"),
    ],
)
def test_a_malformed_explicit_list_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_env_out(text, "cpu.env.out")


def test_the_second_platform_has_a_file_of_its_own() -> None:
    assert env_out_name("cpu", "linux-64", "linux-64") == "cpu.env.out"
    assert env_out_name("cpu", "linux-aarch64", "linux-64") == "cpu.linux-aarch64.env.out"


def test_the_lock_of_a_release_is_ours_or_that_of_an_adopted_one() -> None:
    explicit = {
        "cpu.env.out": File.text("# platform: linux-64\n@EXPLICIT\nfile:c/linux-64/a-1-0.conda#" + "0" * 32 + "\n"),
        "cpu.linux-aarch64.env.out": File.text("@EXPLICIT\nfile:c/linux-aarch64/a-1-0.conda#" + "0" * 32 + "\n"),
    }
    adopted = lock_from_tree(Tree(explicit), "cpu", source="v1")
    assert adopted is not None
    assert (list(adopted.platforms), adopted.input_hash) == (["linux-64", "linux-aarch64"], "")
    ours = lock_from_tree(Tree({**explicit, "cpu.lock.json": File.text(write_lock_json(lock()))}), "cpu", source="v1")
    assert ours == lock()
    assert lock_from_tree(Tree(explicit), "gpu", source="v1") is None
    with pytest.raises(ConfigError, match="v1/gpu.lock.json: it is the lock of image type 'cpu'"):
        lock_from_tree(Tree({"gpu.lock.json": File.text(write_lock_json(lock()))}), "gpu", source="v1")


INPUTS = LockInputs(
    files={"cpu.env.in": "a\nb\n"},
    channels=("conda-forge",),
    platforms=("linux-64",),
    virtual_packages={"linux-64": {"__glibc": "2.36", "__unix": "0"}},
    platform_packages={},
)


@pytest.mark.parametrize(
    "other",
    [
        {"files": {"cpu.env.in": "a\nc\n"}},
        {"files": {"cpu.env.in": "b\na\n"}},
        {"files": {"cpu.env.in": "a\nb\n", "cpu.pinned_env.in": "c\n"}},
        {"channels": ("conda-forge", "other")},
        {"platforms": ("linux-64", "linux-aarch64")},
        {"virtual_packages": {"linux-64": {"__glibc": "2.37", "__unix": "0"}}},
        {"platform_packages": {"a": ("linux-64",)}},
    ],
)
def test_every_input_changes_the_hash(other: dict[str, Any]) -> None:
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", INPUTS.digest)
    assert dataclasses.replace(INPUTS, **other).digest != INPUTS.digest


def test_comments_and_the_order_of_maps_do_not_change_the_hash() -> None:
    same = dataclasses.replace(
        INPUTS,
        files={"cpu.env.in": "# hello\n\n  a\nb"},
        virtual_packages={"linux-64": {"__unix": "0", "__glibc": "2.36"}},
    )
    assert same.digest == INPUTS.digest
