"""The package cache: checked before it is kept, resumed after a break, safe against hostile archives."""

import bz2
import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
import zstandard
from blake3 import blake3

from lockyard import http
from lockyard.conda import archive, digests
from lockyard.conda.archive import unpack
from lockyard.conda.fetch import PackageCache
from lockyard.conda.lock import LockedPackage
from lockyard.errors import BuildError, HashMismatchError

BASE = "https://channel.example/team"


@dataclass
class Told:
    """A `Log` that remembers warnings."""

    warnings: list[str] = field(default_factory=list)

    def step(self, message: str) -> None: ...

    def info(self, message: str) -> None: ...

    def detail(self, message: str) -> None: ...

    def warning(self, message: str) -> None:
        self.warnings.append(message)

    def progress(self, description: str, total: int | None, unit: str) -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(lambda _: None)


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


INFO = tar(member("info/index.json", b"{}"))


def conda(content: bytes, info: bytes = INFO) -> bytes:
    out = io.BytesIO()
    zstd = zstandard.ZstdCompressor()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
        archive.writestr("pkg-a-1-0.tar.zst", zstd.compress(content))
        archive.writestr("info-a-1-0.tar.zst", zstd.compress(info))
    return out.getvalue()


ARCHIVE = conda(tar(member("bin/a", os.urandom(300_000), mode=0o755), member("lib/a.txt", b"hello", mode=0o664)))


def locked(data: bytes = ARCHIVE, *, name: str = "a", base: str = BASE, end: str = ".conda") -> LockedPackage:
    return LockedPackage(
        name=name,
        version="1",
        build="0",
        subdir="noarch",
        url=f"{base}/noarch/{name}-1-0{end}",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )


@dataclass
class Server:
    """Answers from memory, with ranges; `faults` are taken one per request: a status, or a byte count to break after."""

    files: dict[str, bytes]
    ranges: bool = True
    faults: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self.guard:
            wanted = request.headers.get("Range", "")
            self.requests.append(f"{request.url.path.rsplit('/', 1)[-1]} {wanted}".strip())
            fault = self.faults.pop(0) if self.faults else None
        if fault is not None and fault >= 400 and fault < 600:
            return httpx.Response(fault, headers=self.headers)
        data = self.files.get(str(request.url))
        if data is None:
            return httpx.Response(404)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        return httpx.Response(206 if start else 200, headers=headers, content=self._body(data[start:], fault))

    @staticmethod
    def _body(data: bytes, fault: int | None) -> Iterator[bytes]:
        for offset in range(0, len(data), 50_000):
            if fault is not None and offset >= fault:
                raise httpx.ReadError("the connection was lost")
            yield data[offset : offset + 50_000]


@dataclass
class Place:
    cache: Path
    server: Server
    log: Told = field(default_factory=Told)
    waits: list[float] = field(default_factory=list)

    def source(self, workers: int = 8) -> PackageCache:
        return PackageCache(
            cache_dir=self.cache,
            workers=workers,
            log=self.log,
            make_client=lambda: http.make_client(transport=httpx.MockTransport(self.server)),
            retries=http.Retries(sleep=self.waits.append),
        )

    @property
    def partial(self) -> Path:
        return self.cache / "packages/v1/partial"

    def kept(self) -> list[str]:
        """Everything in the cache but directories, the empty lock files and the list of users."""
        return sorted(
            str(path.relative_to(self.cache))
            for path in self.cache.rglob("*")
            if (path.is_symlink() or path.is_file())
            and not path.name.endswith(".lock")
            and path.parent.name != ".users"
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    package = locked()
    return Place(tmp_path / "cache", Server({package.url: ARCHIVE}))


def test_a_package_is_fetched_once(place: Place, tmp_path: Path) -> None:
    first = place.source().fetch([locked()], root=tmp_path)["a-1-0"]
    assert first.fetched
    assert first.archive.read_bytes() == ARCHIVE
    assert (first.directory / "lib/a.txt").read_text() == "hello"
    assert (first.directory / "info/index.json").read_text() == "{}"
    again = place.source().fetch([locked(), locked()], root=tmp_path)["a-1-0"]
    assert not again.fetched
    assert place.server.requests == ["a-1-0.conda"]
    assert list(place.partial.iterdir()) == []


def test_modes_are_those_of_the_archive_whatever_the_umask(place: Place, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        found = place.source().fetch([locked()], root=tmp_path)["a-1-0"]
    finally:
        os.umask(old)
    assert (found.directory / "bin/a").stat().st_mode & 0o7777 == 0o755
    assert (found.directory / "lib/a.txt").stat().st_mode & 0o7777 == 0o664


def test_wrong_bytes_are_not_kept(place: Place, tmp_path: Path) -> None:
    bad = conda(tar(member("bin/a", b"evil")))
    place.server.files[locked().url] = bad
    with pytest.raises(HashMismatchError, match="a-1-0: the bytes at https://channel.example") as caught:
        place.source().fetch([replace(locked(), size=len(bad))], root=tmp_path)
    assert caught.value.exit_code == 5
    assert caught.value.details == (
        f"sha256 in the lock: {hashlib.sha256(ARCHIVE).hexdigest()}",
        f"sha256 received:    {hashlib.sha256(bad).hexdigest()}",
    )
    assert place.kept() == []


def test_more_bytes_than_the_lock_says_are_refused_as_they_come(place: Place, tmp_path: Path) -> None:
    place.server.files[locked().url] = ARCHIVE + b"x" * 500_000
    with pytest.raises(BuildError, match=f"more than the {len(ARCHIVE)} bytes"):
        place.source().fetch([locked()], root=tmp_path)


def test_a_broken_connection_is_continued_where_it_broke(place: Place, tmp_path: Path) -> None:
    place.server.faults = [120_000, 503]
    assert place.source().fetch([locked()], root=tmp_path)["a-1-0"].archive.read_bytes() == ARCHIVE
    assert place.server.requests == ["a-1-0.conda", "a-1-0.conda bytes=150000-", "a-1-0.conda bytes=150000-"]
    assert len(place.waits) == 2


def test_a_killed_fetch_is_continued_by_the_next_run(place: Place, tmp_path: Path) -> None:
    """What a killed process leaves: part of the download, and a stage that was never moved in."""
    digest = locked().sha256
    place.partial.mkdir(parents=True)
    (place.partial / f"sha256-{digest}.part").write_bytes(ARCHIVE[:100_000])
    stale = place.cache / f"packages/v1/sha256/.{digest}.new-dead"
    stale.mkdir(parents=True)
    (stale / "archive.conda").write_bytes(b"half")
    assert place.source().fetch([locked()], root=tmp_path)["a-1-0"].fetched
    assert place.server.requests == ["a-1-0.conda bytes=100000-"]
    assert not stale.exists()
    assert all(digest in path and "new-" not in path for path in place.kept() if digest is not None)


def test_a_server_without_ranges_sends_all_again(place: Place, tmp_path: Path) -> None:
    place.server.ranges = False
    place.server.faults = [120_000]
    assert place.source().fetch([locked()], root=tmp_path)["a-1-0"].archive.read_bytes() == ARCHIVE


@pytest.mark.parametrize("left", [b"garbage", ARCHIVE[:-1] + b"x", ARCHIVE + b"x"])
def test_a_wrong_left_over_is_fetched_again_from_its_first_byte(place: Place, tmp_path: Path, left: bytes) -> None:
    place.partial.mkdir(parents=True)
    (place.partial / f"sha256-{locked().sha256}.part").write_bytes(left)
    assert place.source().fetch([locked()], root=tmp_path)["a-1-0"].archive.read_bytes() == ARCHIVE


def test_a_missing_package_is_not_tried_again(place: Place, tmp_path: Path) -> None:
    place.server.files.clear()
    with pytest.raises(BuildError, match=r"a-1-0 cannot be fetched: GET .*: HTTP 404") as caught:
        place.source().fetch([locked()], root=tmp_path)
    assert place.server.requests == ["a-1-0.conda"]
    assert "lock again" in str(caught.value.hint)


def test_a_busy_server_is_given_the_time_it_asks_for(place: Place, tmp_path: Path) -> None:
    place.server.faults = [429, 429]
    place.server.headers = {"Retry-After": "7"}
    place.source().fetch([locked()], root=tmp_path)
    assert place.waits == [7.0, 7.0]


def test_a_server_that_stays_down_is_an_error_after_five_tries(place: Place, tmp_path: Path) -> None:
    place.server.faults = [503] * 9
    with pytest.raises(BuildError, match="HTTP 503"):
        place.source().fetch([locked()], root=tmp_path)
    assert len(place.server.requests) == 5


def test_a_changed_archive_in_the_cache_is_found_and_fetched_again(place: Place, tmp_path: Path) -> None:
    found = place.source().fetch([locked()], root=tmp_path)["a-1-0"]
    data = bytearray(ARCHIVE)
    data[1000] ^= 1
    found.archive.write_bytes(data)
    again = place.source().fetch([locked()], root=tmp_path)["a-1-0"]
    assert again.fetched
    assert again.archive.read_bytes() == ARCHIVE
    assert place.log.warnings == ["a-1-0: its files in the package cache were changed; fetching it again"]


@pytest.mark.parametrize("what", ["stamp", "files"])
def test_a_damaged_entry_is_made_again(place: Place, tmp_path: Path, what: str) -> None:
    found = place.source().fetch([locked()], root=tmp_path)["a-1-0"]
    if what == "stamp":
        (found.archive.parent / "stamp.json").write_text("{")
    else:
        found.directory.rename(found.directory.with_name("gone"))
    again = place.source().fetch([locked()], root=tmp_path)["a-1-0"]
    assert again.fetched
    assert (again.directory / "lib/a.txt").is_file()


def test_md5_alone_is_accepted_with_a_warning_and_nothing_at_all_is_not(place: Place, tmp_path: Path) -> None:
    weak = replace(locked(), sha256=None, md5=hashlib.md5(ARCHIVE, usedforsecurity=False).hexdigest())
    assert place.source().fetch([weak], root=tmp_path)["a-1-0"].fetched
    assert "checked by md5 only" in place.log.warnings[0]
    with pytest.raises(HashMismatchError, match="not those of the lock"):
        place.source().fetch([replace(weak, md5="0" * 32)], root=tmp_path)
    with pytest.raises(BuildError, match="the lock has no hash"):
        place.source().fetch([replace(weak, md5=None)], root=tmp_path)


def test_a_local_channel_is_relative_to_the_root_and_may_be_a_link(place: Place, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / "noarch"
    real.mkdir(parents=True)
    (real / "a-1-0.conda").write_bytes(ARCHIVE)
    root = tmp_path / "root"
    root.mkdir()
    (root / "channel").symlink_to(real.parent)
    package = locked(base="file:channel")
    assert place.source().fetch([package], root=root)["a-1-0"].archive.read_bytes() == ARCHIVE
    (real / "b-1-0.conda").write_bytes(b"other bytes")
    with pytest.raises(HashMismatchError):
        place.source().fetch([locked(name="b", base="file:channel", data=b"x" * 9)], root=root)
    with pytest.raises(BuildError, match=r"file:channel/noarch/c-1-0\.conda does not exist"):
        place.source().fetch([locked(name="c", base="file:channel", data=b"y" * 9)], root=root)


def test_two_processes_at_once_fetch_once(place: Place, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(place.source().fetch, [locked()], root=tmp_path) for _ in range(4)]
        results = [job.result()["a-1-0"] for job in jobs]
    assert sorted(item.fetched for item in results) == [False, False, False, True]
    assert place.server.requests == ["a-1-0.conda"]


def test_the_first_failure_ends_the_fetch_and_what_is_whole_is_kept(place: Place, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="b-1-0 cannot be fetched"):
        # One after the other, the larger one first: it is whole when the other one fails.
        place.source(workers=1).fetch([locked(), locked(name="b", data=b"other")], root=tmp_path)
    assert not place.source().fetch([locked()], root=tmp_path)["a-1-0"].fetched


SYM, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
HOSTILE = {
    "an absolute path": [member("/etc/passwd", b"x")],
    "a parent": [member("../x", b"x")],
    "a parent inside": [member("a/../../x", b"x")],
    "an empty part": [member("a//../x", b"x")],
    "an absolute link": [member("a", type=SYM, linkname="/etc")],
    "a link outside": [member("a/b", type=SYM, linkname="../../x")],
    "an empty link": [member("a", type=SYM, linkname="")],
    "a file through a link": [member("a", type=SYM, linkname="b"), member("a/x", b"x")],
    "a file over a link": [member("a", type=SYM, linkname="b"), member("a", b"x")],
    "links that climb": [member("d", type=SYM, linkname="."), member("e", type=SYM, linkname="d/..")],
    "a hard link outside": [member("a", type=HARD, linkname="/etc/passwd")],
    "a hard link up": [member("a", type=HARD, linkname="../x")],
    "a hard link to a link": [member("l", type=SYM, linkname="x"), member("a", type=HARD, linkname="l")],
    "a device": [member("a", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "a block device": [member("a", type=tarfile.BLKTYPE, devmajor=8, devminor=0)],
    "a pipe": [member("a", type=tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("kind", [".conda", ".tar.bz2"])
@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_a_hostile_archive_is_refused_and_nothing_is_kept(place: Place, tmp_path: Path, what: str, kind: str) -> None:
    content = tar(member("bin/good", b"good"), *HOSTILE[what])
    data = conda(content) if kind == ".conda" else bz2.compress(content)
    package = locked(data, end=kind)
    place.server.files[package.url] = data
    before = sorted(path for path in tmp_path.rglob("*") if place.cache not in path.parents)
    with pytest.raises(BuildError, match="a-1-0: the archive is refused: ") as caught:
        place.source().fetch([package], root=tmp_path)
    assert caught.value.exit_code == 5
    assert place.kept() == []
    assert sorted(path for path in tmp_path.rglob("*") if place.cache not in path.parents and path != place.cache) == [
        path for path in before if path != place.cache
    ]


def bomb(count: int, size: int) -> bytes:
    """A tar of files of zeros whose headers say `size`; only the first is really there."""
    infos = [member(f"share/{number}", size=size)[0] for number in range(count)]
    return b"".join(info.tobuf(tarfile.PAX_FORMAT) + bytes(size if count > 1 else 0) for info in infos)


@pytest.mark.parametrize("kind", [".conda", ".tar.bz2"])
@pytest.mark.parametrize("what", ["one file of a terabyte", "many files"])
def test_a_bomb_is_refused_by_its_headers(
    place: Place, tmp_path: Path, kind: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bomb(1, 1 << 40)
    if what == "many files":
        monkeypatch.setattr(archive, "EXPANSION_FREE", 3 << 16)
        monkeypatch.setattr(archive, "EXPANSION", 1)
        content = bomb(8, 1 << 16)
    data = conda(content) if kind == ".conda" else bz2.compress(content)
    package = locked(data, end=kind)
    place.server.files[package.url] = data
    with pytest.raises(BuildError, match="absurdly much for its own size"):
        place.source().fetch([package], root=tmp_path)
    assert place.kept() == []


def test_too_many_members_and_too_little_space_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a-1-0.conda"
    path.write_bytes(conda(tar(*(member(f"share/{number}", b"1234") for number in range(9)))))
    monkeypatch.setattr(archive, "MAX_MEMBERS", 8)
    with pytest.raises(BuildError, match="one more than 8 members"):
        unpack(path, tmp_path / "one")
    monkeypatch.setattr(archive, "MAX_MEMBERS", 100)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(BuildError, match="no room for its files: 12 bytes and more, 10 are free"):
        unpack(path, tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "two" / "share").iterdir()) == ["0", "1"]


def test_zeros_become_holes(tmp_path: Path) -> None:
    path = tmp_path / "a-1-0.conda"
    data = b"begin" + bytes(32 << 20) + b"end" + bytes(5 << 20)
    path.write_bytes(conda(tar(member("share/sparse", data), member("share/zeros", bytes(3 << 20)))))
    unpack(path, tmp_path / "files")
    sparse, zeros = (tmp_path / "files/share" / name for name in ("sparse", "zeros"))
    assert sparse.read_bytes() == data
    assert zeros.read_bytes() == bytes(3 << 20)
    assert sparse.stat().st_blocks * 512 < 8 << 20


@pytest.mark.parametrize(
    "data",
    [
        b"no archive",
        ARCHIVE[:200],
        conda(b"no tar" * 300),
        conda(tar(member("a", b"x" * 4000))[:1000]),
        conda(INFO, b"")[:-4] + b"\0\0\0\0",
    ],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    for name in ("archive.conda", "archive.tar.bz2"):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(BuildError, match="the archive"):
            unpack(path, tmp_path / f"{name}.out")


def test_an_archive_with_two_contents_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.conda"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("pkg-a.tar.zst", "pkg-b.tar.zst", "info-a.tar.zst"):
            archive.writestr(name, zstandard.ZstdCompressor().compress(INFO))
    with pytest.raises(BuildError, match="2 parts pkg-"):
        unpack(path, tmp_path / "out")


def test_digests_are_recorded_of_what_the_package_lists(place: Place, tmp_path: Path) -> None:
    """Not of a file that is something else than listed, nor of one that is not listed; a link to a file is that file."""
    files = {"bin/a": b"right", "bin/wrong": b"other", "bin/unlisted": b"more", "bin/b": b"right"}
    listed = {name: hashlib.sha256(b"right").hexdigest() for name in ("bin/a", "bin/wrong", "bin/b")}
    paths = {"paths": [{"_path": name, "path_type": "hardlink", "sha256": value} for name, value in listed.items()]}
    link = member("bin/b", type=tarfile.LNKTYPE, linkname="bin/a")
    content = tar(*(member(name, data) for name, data in files.items() if name != "bin/b"), link)
    package = conda(
        content, tar(member("info/index.json", b"{}"), member("info/paths.json", json.dumps(paths).encode()))
    )
    (tmp_path / "a-1-0.conda").write_bytes(package)
    found = unpack(tmp_path / "a-1-0.conda", tmp_path / "out")
    assert found == dict.fromkeys(("bin/a", "bin/b"), blake3(b"right").hexdigest())
    assert digests.from_json(digests.to_json(found).encode()) == found


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b'{"paths": [1]}', b'{"paths": [{"_path": []}]}', b"[" * 99_999, b"\xff"]
)
def test_of_a_package_with_a_malformed_list_nothing_is_recorded(text: bytes, tmp_path: Path) -> None:
    package = conda(tar(member("bin/a", b"a")), tar(member("info/paths.json", text)))
    (tmp_path / "a-1-0.conda").write_bytes(package)
    assert unpack(tmp_path / "a-1-0.conda", tmp_path / "out") == {}


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"schema": 2, "blake3": {"a": "b"}}', '{"schema": 1}', "{"])
def test_digests_of_another_kind_are_none(text: str) -> None:
    assert digests.from_json(text.encode()) == {}
    assert digests.from_json(None) == {}


def test_links_inside_the_package_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar.bz2"
    links = [
        member("lib/real", b"x"),
        member("lib/soft", type=SYM, linkname="real"),
        member("bin/up", type=SYM, linkname="../lib/real"),
        member("lib/dangling", type=SYM, linkname="later"),
        member("lib/hard", type=HARD, linkname="lib/real"),
        member("./dot/file", b"y"),
    ]
    path.write_bytes(bz2.compress(tar(*links)))
    unpack(path, tmp_path / "out")
    assert (tmp_path / "out/bin/up").readlink() == Path("../lib/real")
    assert (tmp_path / "out/lib/hard").read_bytes() == b"x"
    assert (tmp_path / "out/lib/dangling").is_symlink()
    assert (tmp_path / "out/dot/file").read_bytes() == b"y"
