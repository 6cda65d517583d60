"""Distributions are taken apart: each thing that may be wrong is found, and a steady sdist is steady."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from lockyard.errors import BuildError, VersionExistsError
from lockyard.pyrelease import requirements
from lockyard.pyrelease.dist import (
    DistFile,
    contents,
    differing,
    file_version,
    left_out,
    problems,
    steady_sdist,
    unpacked,
)
from lockyard.pyrelease.indexes import JSON_TYPE, Target, missing_files, parse_listing
from lockyard.pyrelease.project import Project, parse_project
from support.package_index import make_wheel

PROJECT = parse_project(
    '[project]\nname = "lab"\nversion = "1.0"\n[project.scripts]\nlab = "lab:main"\n',
    root=Path("/x"),
    read=lambda _: None,
)
INFO = "lab-1.0.dist-info"
METADATA = b"Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n\nWords\n"
WHEEL = {
    "lab/__init__.py": b"x = 1\n", f"{INFO}/METADATA": METADATA, f"{INFO}/WHEEL": b"Tag: py3-none-any\n",
    f"{INFO}/entry_points.txt": b"[console_scripts]\nlab = lab:main\n",
}  # fmt: skip
SDIST = {"lab-1.0/src/lab/__init__.py": b"x = 1\n", "lab-1.0/PKG-INFO": METADATA, "lab-1.0/pyproject.toml": b""}


def tar(files: Mapping[str, bytes], *, mtime: int = 5, mode: int = 0o640, backwards: bool = False) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in sorted(files, reverse=backwards):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode, info.uname = len(files[name]), mtime, mode, "me"
            archive.addfile(info, io.BytesIO(files[name]))
    return out.getvalue()


def found(
    wheel: Mapping[str, bytes] = WHEEL, sdist: Mapping[str, bytes] = SDIST, *, name: str = "lab-1.0-py3-none-any.whl", project: Project = PROJECT
) -> tuple[str, ...]:  # fmt: skip
    return problems(
        project, Version("1.0"), DistFile("lab-1.0.tar.gz", tar(sdist)), DistFile(name, make_wheel(wheel, INFO))
    )


def test_nothing_is_wrong() -> None:
    assert found() == ()


@pytest.mark.parametrize(
    ("wheel", "sdist", "message"),
    [
        ({"lab/__init__.py": b"x = 2\n"}, {}, "lab/__init__.py differs from that of lab-1.0.tar.gz"),
        ({"lab/new.py": b"new\n"}, {}, "lab/new.py is not in lab-1.0.tar.gz"),
        ({f"{INFO}/METADATA": METADATA.replace(b"1.0", b"1.1")}, {}, "METADATA says the version '1.1', not 1.0"),
        ({f"{INFO}/METADATA": METADATA.replace(b"lab", b"bal")}, {}, "METADATA says the name 'bal'"),
        ({f"{INFO}/entry_points.txt": b""}, {}, "has no command lab = lab:main"),
        ({"lab/__pycache__/x.pyc": b""}, {}, "lab/__pycache__/x.pyc, which belongs to no distribution"),
        ({}, {"lab-1.0/.env": b"SECRET=1"}, "lab-1.0/.env, which belongs to no distribution"),
        ({}, {"lab-1.0/pyproject.toml": None}, "lab-1.0.tar.gz has no pyproject.toml"),
        ({}, {"lab-1.0/PKG-INFO": None}, "lab-1.0.tar.gz has no lab-1.0/PKG-INFO"),
        ({"lab/__init__.py": None, "bal/__init__.py": b"x = 1\n"}, {}, "has no module lab"),
    ],
)
def test_what_is_wrong(wheel: dict[str, bytes | None], sdist: dict[str, bytes | None], message: str) -> None:
    def merged(old: Mapping[str, bytes], new: Mapping[str, bytes | None]) -> dict[str, bytes]:
        return {path: data for path, data in {**old, **new}.items() if data is not None}

    assert any(message in line for line in found(merged(WHEEL, wheel), merged(SDIST, sdist)))


def test_a_record_that_lies() -> None:
    good = make_wheel(WHEEL, INFO)
    record = contents(DistFile("x.whl", good))[f"{INFO}/RECORD"]
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, data in {
            **WHEEL,
            "lab/__init__.py": b"y = 1\n",
            "lab/more.txt": b"",
            f"{INFO}/RECORD": record + b"gone.py,,\n",
        }.items():
            archive.writestr(path, data)
    lines = problems(
        PROJECT,
        Version("1.0"),
        DistFile("lab-1.0.tar.gz", tar(SDIST)),
        DistFile("lab-1.0-py3-none-any.whl", out.getvalue()),
    )
    said = "\n".join(lines)
    assert "RECORD does not have lab/more.txt" in said
    assert "RECORD has gone.py, which is not there" in said
    assert "RECORD has another hash for lab/__init__.py" in said


def test_names() -> None:
    assert any("is not named after lab 1.0" in line for line in found(name="lab-1.1-py3-none-any.whl"))
    assert file_version("lab_tools-1.0-py3-none-any.whl") == ("lab-tools", Version("1.0"))
    assert file_version("lab_tools-1.0.tar.gz") == ("lab-tools", Version("1.0"))
    assert file_version("lab.exe") is None
    assert file_version("lab-one.tar.gz") is None


def test_paths_that_lead_out() -> None:
    for name in ("../x", "/etc/x", "a//b"):
        with pytest.raises(BuildError, match="leads out of it"):
            contents(DistFile("lab-1.0.tar.gz", tar({name: b""})))
    with pytest.raises(BuildError, match="is damaged"):
        contents(DistFile("lab-1.0.tar.gz", b"no tar"))
    with pytest.raises(BuildError, match="is damaged"):
        contents(DistFile("lab-1.0-py3-none-any.whl", b"no zip"))


@pytest.mark.parametrize(
    ("target", "fine"), [("y", True), ("../x/y", True), ("/etc/passwd", False), ("../../etc/passwd", False)]
)
def test_links(target: str, fine: bool) -> None:
    """A link that stays in the sdist is one in the source, too; another is refused."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, kind in (("x/run", tarfile.REGTYPE), ("x/link", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target if kind == tarfile.SYMTYPE else "", 0o755
            archive.addfile(info)
    if not fine:
        with pytest.raises(BuildError, match="leads out of it"):
            contents(DistFile("x-1.tar.gz", out.getvalue()))
        return
    tree = unpacked(DistFile("x-1.tar.gz", steady_sdist(out.getvalue(), 1)))
    assert (tree["run"].mode, tree["link"].is_link, tree["link"].data) == (0o755, True, target.encode())


@given(
    st.dictionaries(
        st.text("abc/", min_size=1, max_size=6).map(lambda name: "x/" + name.replace("/", "") + "n"),
        st.binary(max_size=40),
        max_size=6,
    )
)
def test_a_steady_sdist(files: dict[str, bytes]) -> None:
    """Order, times, owners and modes of what a backend gives do not matter; the content stays."""
    one, other = tar(files), tar(files, mtime=99, mode=0o600, backwards=True)
    assert steady_sdist(one, 1_000_000) == steady_sdist(other, 1_000_000)
    assert contents(DistFile("x.tar.gz", steady_sdist(one, 7))) == files


def test_what_differs() -> None:
    one, other = (DistFile("x-1.tar.gz", tar({"x/a": b"1", "x/b": data})) for data in (b"2", b"3"))
    assert differing(one, other) == ("x/b",)
    assert differing(one, DistFile(one.name, tar(contents(one), mtime=1))) == ("times, modes or order of the members",)


def test_what_was_left_out() -> None:
    tracked = frozenset({"src/lab/__init__.py", "src/lab/py.typed", "src/lab/.hidden", "tests/test.py", "README.md"})
    assert left_out(tracked, DistFile("x.whl", make_wheel(WHEEL, INFO))) == ("src/lab/py.typed",)


# Listings of indexes

TARGET = Target("test", "https://x/", "https://x/simple/", is_test=False, section="")


def test_listings() -> None:
    page = b'<a href="../../f/lab-1.0.tar.gz#sha256=AB">x</a><a href="lab-1.0-py3-none-any.whl">y</a><p><a name="z">'
    assert parse_listing(page, "text/html; charset=utf-8", "u") == {
        "lab-1.0.tar.gz": "ab",
        "lab-1.0-py3-none-any.whl": None,
    }
    data = (
        b'{"files": [{"filename": "lab-1.0.tar.gz", "hashes": {"sha256": "ab"}}, {"filename": "b.whl", "hashes": {}}]}'
    )
    assert parse_listing(data, JSON_TYPE, "u") == {"lab-1.0.tar.gz": "ab", "b.whl": None}


def test_what_an_index_lacks() -> None:
    files = (DistFile("lab-1.0.tar.gz", b"1"), DistFile("lab-1.0-py3-none-any.whl", b"2"))
    sdist, wheel = files
    other = {"lab-0.9.tar.gz": "ab", "lab-1.0.1.tar.gz": "ab"}
    assert missing_files(files, other, Version("1.0"), TARGET) == files
    assert missing_files(files, {**other, sdist.name: sdist.sha256}, Version("1.0"), TARGET) == (wheel,)
    assert missing_files(files, {sdist.name: sdist.sha256, wheel.name: None}, Version("1.0"), TARGET) == ()
    for there in ({sdist.name: "ab"}, {"lab-1.0-cp311-cp311-linux_x86_64.whl": "ab"}):
        with pytest.raises(VersionExistsError, match="with other bytes"):
            missing_files(files, there, Version("1.0"), TARGET)


# Requirement files

PINS = "# Made by x\none==1.0 \\\n    --hash=sha256:ab\n    # via two\nTwo==2.0 ; sys_platform == 'win32' \\\n    --hash=sha256:cd\ntwo==2.1 \\\n    --hash=sha256:ef\n"


def test_pins() -> None:
    assert requirements.pins(PINS) == {"one": "1.0", "two": "2.0 | 2.1"}
    assert [(item.name, item.old, item.new) for item in requirements.changes(PINS, PINS.replace("one==1.0", "three==1"))] == [
        ("one", "1.0", None), ("three", None, "1"),
    ]  # fmt: skip
    requirements.check_committable(PINS, "r.txt")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--index-url https://pypi.example.com/simple", "r.txt:9: an index address"),
        ("--find-links wheels", "an index address"),
        ("four @ https://me:pw@example.com/four.whl \\", "a credential"),
        ("four @ file:///home/me/four", "a path of this machine"),
        ("four==1.0", "r.txt:9: no hash: four==1.0"),
    ],
)
def test_what_is_never_committed(line: str, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        requirements.check_committable(PINS + line + "\n", "r.txt")


@pytest.mark.parametrize(
    ("requires", "lowest"),
    [(">=3.11", "3.11"), ("^3.12", "3.12"), (">3.9,<4", "3.9"), (None, "3.13"), (">=3.10,!=3.12.1", "3.10")],
)
def test_the_lowest_python(requires: str | None, lowest: str) -> None:
    text = (
        f'[project]\nname = "x"\nversion = "1"\nrequires-python = "{requires}"\n'
        if requires
        else '[project]\nname = "x"\nversion = "1"\n'
    )
    assert requirements.lowest_python(parse_project(text, root=Path("/x"), read=lambda _: None), "3.13") == lowest
