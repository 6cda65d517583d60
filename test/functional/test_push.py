"""Plans carried out against registries in memory and OCI directories: order, faults, kills at every effect."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lockyard.errors import HashMismatchError, RegistryError
from lockyard.http import Retries
from lockyard.ports.registry import RegistryPort
from lockyard.registry.client import RegistryClient
from lockyard.registry.directory import REF_NAME, OciDirectory
from lockyard.registry.journal import open_journal
from lockyard.registry.plan import Present, PushImage, PushPlan, Target, plan_push
from lockyard.registry.push import run_push
from lockyard.registry.sending import PushReport
from support.effects import WAITLESS, GivenCredentials, RecordingLog
from support.images import parts, push_image
from support.registry_server import Fault, RegistryServer, running_registry

CHUNK = 1 << 20
FLOATING = {"cpu": ("1.0-cpu", "1-cpu", "latest-cpu"), "gpu": ("1.0-gpu", "1-gpu", "latest-gpu")}
NAMES = ("team/first", "team/second", "team/third")


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing catches it."""


@pytest.fixture
def images(tmp_path: Path) -> list[PushImage]:
    """Two types that share a layer, one of them with a layer of several chunks."""
    cpu = push_image(tmp_path / "blobs", "cpu", (3000, 2 * CHUNK + 5), image_type="cpu", tag="1.0.0-cpu")
    gpu = push_image(tmp_path / "blobs", "gpu", (2000, 1000), image_type="gpu", tag="1.0.0-gpu")
    return [cpu, gpu]


def distinct_bytes(images: Sequence[PushImage]) -> int:
    return sum({blob.digest: blob.size for image in images for blob in image.blobs}.values())


class Pusher:
    """Asks, plans and pushes to the named repositories, with a journal, as the use case does."""

    def __init__(
        self, images: Sequence[PushImage], journal: Path, open_port: Callable[[str], RegistryPort], names: Sequence[str]
    ) -> None:
        self.images, self.journal, self.open_port, self.names = images, journal, open_port, names
        self.log = RecordingLog()

    def plan(self, ports: Mapping[str, RegistryPort]) -> PushPlan:
        targets, present = [], {}
        for name, port in ports.items():
            targets.append(Target(repository=name, registry=port.registry, floating=FLOATING))
            tags = {
                tag: port.manifest_digest(tag)
                for image in self.images
                for tag in (image.tag, *FLOATING[image.image_type])
            }
            present[name] = Present(
                blobs=port.present_blobs({blob.digest: blob.size for image in self.images for blob in image.blobs}),
                manifests=frozenset(
                    item.digest
                    for image in self.images
                    for item in image.manifests
                    if port.manifest_digest(item.digest)
                ),
                tags={tag: digest for tag, digest in tags.items() if digest},
            )
        return plan_push(self.images, targets, present)

    def push(self, wrap: Callable[[RegistryPort], RegistryPort] = lambda port: port, *, workers: int = 4) -> PushReport:
        with contextlib.ExitStack() as stack:
            ports = {}
            for name in self.names:
                port = self.open_port(name)
                stack.callback(port.close)
                ports[name] = wrap(port)
            journal = stack.enter_context(open_journal(self.journal))
            return run_push(self.plan(ports), ports, memory=journal, log=self.log, workers=workers).total


def http_pusher(
    server: RegistryServer,
    images: Sequence[PushImage],
    tmp_path: Path,
    names: Sequence[str] = NAMES,
    *,
    retries: Retries = WAITLESS,
) -> Pusher:
    def open_port(name: str) -> RegistryPort:
        return RegistryClient(name, GivenCredentials(), log=RecordingLog(), retries=retries, chunk=CHUNK)

    return Pusher(images, tmp_path / "journal", open_port, [server.repository(name) for name in names])


def directory_pusher(images: Sequence[PushImage], tmp_path: Path) -> Pusher:
    return Pusher(images, tmp_path / "journal", lambda name: OciDirectory(tmp_path / name), ["one", "two"])


def expected_tags(images: Sequence[PushImage]) -> dict[str, str]:
    return {tag: image.top.digest for image in images for tag in (image.tag, *FLOATING[image.image_type])}


def test_one_upload_per_registry_the_others_mount(
    server: RegistryServer, images: list[PushImage], tmp_path: Path
) -> None:
    pusher = http_pusher(server, images, tmp_path)
    report = pusher.push()
    whole = distinct_bytes(images)
    assert (report.sent_bytes, report.mounted_bytes, report.refused_mounts) == (whole, 2 * whole, 0)
    assert server.received() == whole == pusher.log.advanced == pusher.log.total
    for name in NAMES:
        assert server.tag_digests(name) == expected_tags(images)
    assert server.state_checks == []


def test_again_sends_nothing(server: RegistryServer, images: list[PushImage], tmp_path: Path) -> None:
    pusher = http_pusher(server, images, tmp_path)
    pusher.push()
    server.forget_log()
    assert pusher.push() == PushReport()
    assert server.writes() == []


def test_refused_mounts_become_uploads(server: RegistryServer, images: list[PushImage], tmp_path: Path) -> None:
    server.refuse_mounts = True
    report = http_pusher(server, images, tmp_path).push()
    assert report.mounted_bytes == 0
    assert report.sent_bytes == 3 * distinct_bytes(images)
    assert server.tag_digests(NAMES[2]) == expected_tags(images)


def test_the_order_of_the_requests(server: RegistryServer, images: list[PushImage], tmp_path: Path) -> None:
    """Exact tags after all manifests of every repository, floating tags after all exact tags, and read back in between."""
    http_pusher(server, images, tmp_path).push()
    exact = {image.tag for image in images}
    ranks = []
    for item in server.log:
        if item.method == "PUT" and "/manifests/" in item.path:
            reference = item.path.rpartition("/")[2]
            ranks.append(1 if ":" in reference else 2 if reference in exact else 4)
        elif item.method == "GET" and item.path.rpartition("/")[2] in exact:
            ranks.append(3)
        elif item.method in {"POST", "PATCH", "PUT"}:
            ranks.append(1)
    assert ranks == sorted(ranks)
    assert [ranks.count(rank) for rank in (2, 3, 4)] == [6, 6, 18]
    mounts = [number for number, item in enumerate(server.log) if "mount=" in item.path]
    first = [
        number
        for number, item in enumerate(server.log)
        if item.method == "PUT" and "/team/first/manifests/sha256" in item.path
    ]
    assert max(first) < min(mounts), "a registry mounts only what a manifest of the source refers to"


@pytest.mark.parametrize("keep_partial", [True, False])
@pytest.mark.parametrize("cut", [100, 3000, CHUNK, 2 * CHUNK, 2 * CHUNK + 4000])
def test_cut_then_run_again(
    server: RegistryServer, images: list[PushImage], tmp_path: Path, cut: int, keep_partial: bool
) -> None:
    """The connection breaks for good at some byte; the next run sends what is missing, and the digests are the same."""
    server.cut(cut, keep_partial=keep_partial, for_good=True)
    pusher = http_pusher(server, images, tmp_path, NAMES[:1], retries=Retries(attempts=1))
    with pytest.raises(RegistryError) as caught:
        pusher.push(workers=1)  # with no upload beside the broken one, whose bytes would be counted later
    assert "again" in str(caught.value.hint)
    assert server.tags == {}
    server.down = False
    first = server.received()
    pusher.push()
    second = server.received() - first
    whole = distinct_bytes(images)
    assert server.tag_digests(NAMES[0]) == expected_tags(images)
    assert server.state_checks == []
    assert second <= whole
    if keep_partial and cut > CHUNK:
        assert second < whole, "finished blobs and chunks are not sent again"


def test_another_process_goes_on_in_the_middle_of_a_blob(server: RegistryServer, tmp_path: Path) -> None:
    """The journal knows where the upload goes on: not one byte that the registry kept is sent again."""
    images = [push_image(tmp_path / "blobs", "cpu", (3 * CHUNK,))]
    server.cut(2 * CHUNK + 500, for_good=True)
    pusher = http_pusher(server, images, tmp_path, NAMES[:1], retries=Retries(attempts=1))
    with pytest.raises(RegistryError):
        pusher.push(workers=1)
    assert server.received() == 2 * CHUNK + 500
    server.down = False
    pusher.push(workers=1)
    assert server.received() == distinct_bytes(images)
    assert server.tag_digests(NAMES[0])["latest-cpu"] == images[0].top.digest


class Injected:
    """A port that calls `hook(method, number)` before every call, and may die after it."""

    def __init__(
        self, port: RegistryPort, hook: Callable[[str, int], Any], counter: list[int] | None = None, after: bool = False
    ) -> None:
        self._port, self._hook, self._after = port, hook, after
        self._counter = counter if counter is not None else [0]

    @property
    def registry(self) -> str | None:
        return self._port.registry

    @property
    def max_blob(self) -> int | None:
        return self._port.max_blob

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._counter[0] += 1
            number = self._counter[0]
            if not self._after:
                self._hook(name, number)
            value = method(*args, **kwargs)
            if self._after:
                self._hook(name, number)
            return value

        return call


def kill_at(target: int, after: bool) -> Callable[[RegistryPort], RegistryPort]:
    counter = [0]

    def hook(name: str, number: int) -> None:
        if number >= target:
            raise Killed(name)

    return lambda port: Injected(port, hook, counter, after)


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_effect_on_a_registry(tmp_path: Path, after: bool) -> None:
    """Whenever a push dies, no tag leads to something incomplete, none floats before all exact tags, and again ends well."""
    small = [push_image(tmp_path / "blobs", "cpu", (900, 800))]
    target, killed = 1, True
    while killed:
        with running_registry() as server:
            pusher = http_pusher(server, small, tmp_path / str(target), NAMES[:2])
            pusher.journal = tmp_path / str(target) / "journal"
            try:
                pusher.push(kill_at(target, after))
                killed = False
            except Killed:
                exact = [server.tag_digests(name).keys() >= {image.tag for image in small} for name in NAMES[:2]]
                floating = any(set(server.tag_digests(name)) & {"latest-cpu", "latest-gpu"} for name in NAMES[:2])
                assert all(exact) or not floating
            before = server.received()
            pusher.push()
            assert server.received() <= distinct_bytes(small), "nothing is sent twice"
            assert before <= server.received()
            assert server.state_checks == []
            assert [server.tag_digests(name) for name in NAMES[:2]] == [expected_tags(small)] * 2
        target += 1
    assert target > 25, "the push has more effects than that"


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_effect_on_directories(tmp_path: Path, after: bool) -> None:
    small = [push_image(tmp_path / "blobs", "cpu", (900, 800))]
    target, killed = 1, True
    while killed:
        place = tmp_path / str(target)
        pusher = directory_pusher(small, place)
        try:
            pusher.push(kill_at(target, after))
            killed = False
        except Killed:
            for name in ("one", "two"):
                check_layout(place / name)
        pusher.push()
        for name in ("one", "two"):
            assert check_layout(place / name) == expected_tags(small)
        target += 1
    assert target > 20


def check_layout(path: Path) -> dict[str, str]:
    """Tag → digest of a layout; everything that a tag leads to is there, and nothing half-written beside it."""
    if not (path / "index.json").exists():
        return {}
    tags = {}
    for entry in json.loads((path / "index.json").read_text())["manifests"]:
        body = (path / "blobs/sha256" / entry["digest"][7:]).read_bytes()
        assert len(body) == entry["size"]
        assert all((path / "blobs/sha256" / digest[7:]).is_file() for digest in parts(body))
        tags[entry["annotations"][REF_NAME]] = entry["digest"]
    assert not [item for item in path.rglob("*") if ".new-" in item.name]
    return tags


def test_a_damaged_blob_is_refused_before_its_manifest_and_tags(
    server: RegistryServer, images: list[PushImage], tmp_path: Path
) -> None:
    for blob in images[0].blobs:
        if blob.size > CHUNK:
            assert isinstance(blob.source, Path)
            blob.source.write_bytes(blob.source.read_bytes()[:-1] + b"?")
    with pytest.raises(HashMismatchError):
        http_pusher(server, images, tmp_path).push()
    assert server.manifests == {}
    assert server.tags == {}
    with pytest.raises(HashMismatchError):
        directory_pusher(images, tmp_path).push()
    assert check_layout(tmp_path / "one") == {}


def test_a_tag_that_does_not_lead_to_the_image_stops_the_floating_tags(
    server: RegistryServer, images: list[PushImage], tmp_path: Path
) -> None:
    """A registry that loses or changes what it was given is found out by reading back."""
    server.faults.append(Fault("GET", "/manifests/1.0.0-gpu", 200, body=b"{}"))
    with pytest.raises(RegistryError, match=r"1\.0\.0-gpu leads to"):
        http_pusher(server, images, tmp_path).push()
    assert not {"latest-cpu", "latest-gpu"} & set(server.tag_digests(NAMES[0]))


def test_an_exact_tag_that_appears_meanwhile_is_not_overwritten(
    server: RegistryServer, images: list[PushImage], tmp_path: Path
) -> None:
    other = push_image(tmp_path / "other", "other", (10,))

    def hook(name: str, _: int) -> None:
        if name == "put_manifest" and "1.0.0-cpu" not in server.tags.get(NAMES[0], {}):
            with contextlib.closing(
                RegistryClient(server.repository(NAMES[0]), GivenCredentials(), log=RecordingLog())
            ) as else_where:
                for blob in other.blobs:
                    else_where.upload_blob(blob.source, blob.digest, blob.size, progress=lambda _: None)
                else_where.put_manifest("1.0.0-cpu", other.top.body, other.top.descriptor.media_type)

    with pytest.raises(RegistryError, match="appeared as"):
        http_pusher(server, images, tmp_path).push(lambda port: Injected(port, hook))
    assert server.tag_digests(NAMES[0])["1.0.0-cpu"] == other.top.digest


def test_a_failed_upload_stops_the_others(server: RegistryServer, images: list[PushImage], tmp_path: Path) -> None:
    server.faults.append(Fault("POST", "/uploads/", 403, times=10**6))
    with pytest.raises(RegistryError, match="403"):
        http_pusher(server, images, tmp_path).push()
    assert server.blobs == {}


class TestDirectory:
    def test_several_images_and_tags_in_one_layout(self, images: list[PushImage], tmp_path: Path) -> None:
        directory_pusher(images, tmp_path).push()
        assert check_layout(tmp_path / "one") == expected_tags(images)
        assert OciDirectory(tmp_path / "one").tags() == tuple(sorted(expected_tags(images)))
        assert json.loads((tmp_path / "one/oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}

    def test_what_a_killed_push_left_is_taken_over(self, images: list[PushImage], tmp_path: Path) -> None:
        directory_pusher(images[:1], tmp_path).push()
        blobs = tmp_path / "one/blobs/sha256"
        left = [
            tmp_path / "one/.index.json.new-x",
            blobs / f".{images[1].top.digest[7:]}.new-x",
            blobs / f".{images[1].blobs[0].digest[7:]}.part",
        ]
        for path in left:
            path.write_bytes(b"half" * 2000)
        directory_pusher(images, tmp_path).push()
        assert [path for path in left if path.exists()] == []
        assert check_layout(tmp_path / "one") == expected_tags(images)

    def test_a_tag_moves(self, images: list[PushImage], tmp_path: Path) -> None:
        port = OciDirectory(tmp_path / "one")
        for image in images:
            for blob in image.blobs:
                port.upload_blob(blob.source, blob.digest, blob.size, progress=lambda _: None)
            port.put_manifest("latest", image.top.body, image.top.descriptor.media_type)
        assert port.tags() == ("latest",)
        assert port.manifest_digest("latest") == images[-1].top.digest

    def test_a_manifest_with_missing_parts_is_refused(self, images: list[PushImage], tmp_path: Path) -> None:
        with pytest.raises(RegistryError, match="has not got"):
            OciDirectory(tmp_path / "one").put_manifest("latest", images[0].top.body, "application/x")
        assert check_layout(tmp_path / "one") == {}

    def test_a_directory_with_other_things_is_left_alone(self, images: list[PushImage], tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "one/thesis.tex").write_text("text")
        blob = images[0].blobs[0]
        with pytest.raises(RegistryError, match=r"thesis\.tex"):
            OciDirectory(tmp_path / "one").upload_blob(blob.source, blob.digest, blob.size, progress=lambda _: None)
        assert [item.name for item in (tmp_path / "one").iterdir()] == ["thesis.tex"]

    @pytest.mark.parametrize(
        "text", ["{", "[]", "{}", '{"manifests": [{"digest": "sha256:../../x"}]}', '{"manifests": [7]}']
    )
    def test_a_malformed_index_is_named(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(RegistryError, match=r"index\.json"):
            OciDirectory(tmp_path).tags()

    def test_a_damaged_manifest_is_named(self, images: list[PushImage], tmp_path: Path) -> None:
        directory_pusher(images, tmp_path).push()
        path = tmp_path / "one/blobs/sha256" / images[0].top.digest[7:]
        path.write_bytes(path.read_bytes().replace(b"2", b"3", 1))
        with pytest.raises(RegistryError, match="damaged"):
            OciDirectory(tmp_path / "one").get_manifest("1.0.0-cpu")
