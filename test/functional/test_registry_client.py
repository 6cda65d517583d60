"""The client against a registry in memory: uploads, mounts, faults, authentication."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockyard.errors import ConfigError, HashMismatchError, RegistryError
from lockyard.ports.registry import UploadSession
from lockyard.registry.client import RegistryClient
from lockyard.registry.upload import SMALL
from lockyard.registry.wire import Credential
from support.effects import WAITLESS, GivenCredentials, RecordingLog
from support.images import random_bytes
from support.registry_server import Fault, RegistryServer, running_registry, storage_server

CHUNK = 1 << 20
BIG = 3 * CHUNK + 777
GOOD = Credential("user", "correct-horse")


@contextlib.contextmanager
def client_of(
    server: RegistryServer,
    name: str = "team/image",
    *,
    credentials: GivenCredentials | None = None,
    insecure: bool = False,
) -> Iterator[RegistryClient]:
    client = RegistryClient(
        server.repository(name), credentials or GivenCredentials(), log=RecordingLog(), retries=WAITLESS, chunk=CHUNK,
        insecure=insecure,
    )  # fmt: skip
    with contextlib.closing(client):
        yield client


@pytest.fixture
def client(server: RegistryServer) -> Iterator[RegistryClient]:
    with client_of(server) as client:
        yield client


class File:
    """A blob's file, and what its upload told."""

    def __init__(self, place: Path, size: int, seed: str = "blob") -> None:
        self.data = random_bytes(seed, size)
        self.path = place / seed
        self.path.write_bytes(self.data)
        self.digest = f"sha256:{hashlib.sha256(self.data).hexdigest()}"
        self.told = 0
        self.sessions: list[UploadSession] = []

    def progress(self, amount: int) -> None:
        self.told += amount

    def upload(self, client: RegistryClient, session: UploadSession | None = None) -> int:
        return client.upload_blob(
            self.path,
            self.digest,
            len(self.data),
            progress=self.progress,
            session=session,
            on_session=self.sessions.append,
        )


@pytest.mark.parametrize("size", [0, 1, 1000, SMALL, SMALL + 1, CHUNK * 2, BIG])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_blob_arrives(
    server: RegistryServer, client: RegistryClient, tmp_path: Path, size: int, absolute: bool
) -> None:
    server.absolute_locations = absolute
    file = File(tmp_path, size)
    assert client.present_blobs({file.digest: size}) == frozenset()
    assert file.upload(client) == size
    assert server.blobs["team/image"][file.digest] == file.data
    assert file.told == size
    assert client.present_blobs({file.digest: size, "sha256:" + "0" * 64: 1}) == {file.digest}
    assert server.uploads == {}


@pytest.mark.parametrize("keep_partial", [True, False])
@pytest.mark.parametrize("cut", [2, SMALL, CHUNK + 5, 2 * CHUNK, BIG - 1, BIG])
def test_a_cut_connection_goes_on_where_the_registry_says(
    server: RegistryServer, client: RegistryClient, tmp_path: Path, cut: int, keep_partial: bool
) -> None:
    server.cut(cut, keep_partial=keep_partial)
    file = File(tmp_path, BIG)
    sent = file.upload(client)
    assert server.cut_after is None, "the connection was never cut"
    assert server.blobs["team/image"][file.digest] == file.data
    assert file.told == BIG
    # A registry that keeps what came gets the rest only; one that loses the session gets the blob again.
    assert server.received() == (BIG if keep_partial else BIG + cut)
    assert sent >= server.received()


def test_one_byte_looks_like_none(server: RegistryServer, client: RegistryClient, tmp_path: Path) -> None:
    """`Range: 0-0` says nothing and one byte alike: the upload begins again."""
    server.cut(1)
    file = File(tmp_path, BIG)
    file.upload(client)
    assert server.blobs["team/image"][file.digest] == file.data


def test_a_cut_small_blob_is_sent_again(server: RegistryServer, client: RegistryClient, tmp_path: Path) -> None:
    server.cut(500)
    file = File(tmp_path, 1000)
    assert file.upload(client) == 2000
    assert server.blobs["team/image"][file.digest] == file.data
    assert file.told == 1000


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "HEAD", "GET"])
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_temporary_failures_are_tried_again(
    server: RegistryServer, client: RegistryClient, tmp_path: Path, method: str, status: int
) -> None:
    server.faults.append(Fault(method, "/team/image/", status, times=2))
    file = File(tmp_path, BIG)
    client.present_blobs({file.digest: BIG})
    file.upload(client)
    assert client.tags() == ()
    assert server.faults[0].times == 0
    assert server.blobs["team/image"][file.digest] == file.data


def test_what_the_server_asks_to_wait_is_waited(server: RegistryServer, tmp_path: Path) -> None:
    waits: list[float] = []
    retries = type(WAITLESS)(attempts=3, sleep=waits.append)
    server.faults.append(Fault("HEAD", "/blobs/", 429, times=2, headers={"Retry-After": "7"}))
    client = RegistryClient(server.repository("a"), GivenCredentials(), log=RecordingLog(), retries=retries)
    with contextlib.closing(client):
        client.present_blobs({"sha256:" + "0" * 64: 1})
    assert waits == [7.0, 7.0]


def test_a_lasting_failure_ends_with_the_answer_of_the_registry(server: RegistryServer, client: RegistryClient) -> None:
    body = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}'
    server.faults.append(Fault("GET", "/tags/", 503, times=99, body=body))
    with pytest.raises(RegistryError, match=r"HTTP 503 Service Unavailable; TOOMANYREQUESTS: slow down") as caught:
        client.tags()
    assert caught.value.exit_code == 6
    assert server.faults[0].times == 99 - WAITLESS.attempts


def test_a_refusal_is_not_tried_again(server: RegistryServer, client: RegistryClient, tmp_path: Path) -> None:
    server.faults.append(Fault("POST", "/uploads/", 403, times=99))
    with pytest.raises(RegistryError, match="403") as caught:
        File(tmp_path, BIG).upload(client)
    assert server.faults[0].times == 98
    assert "docker login" in str(caught.value.hint)


@pytest.mark.parametrize("size", [1000, BIG])
def test_a_lost_last_answer_is_looked_after(
    server: RegistryServer, client: RegistryClient, tmp_path: Path, size: int
) -> None:
    """The registry has the blob, its answer was lost: nothing is sent again."""
    server.faults.append(Fault("PUT", "/uploads/", 502, after=True))
    file = File(tmp_path, size)
    assert file.upload(client) == size
    assert server.received() == size


def test_a_lost_session_begins_again(server: RegistryServer, client: RegistryClient, tmp_path: Path) -> None:
    server.faults.append(Fault("PATCH", "/uploads/", 404, times=2))
    file = File(tmp_path, BIG)
    file.upload(client)
    assert server.blobs["team/image"][file.digest] == file.data
    assert file.told == BIG


def test_a_registry_that_takes_no_parts_gets_the_blob_in_one(
    server: RegistryServer, client: RegistryClient, tmp_path: Path
) -> None:
    server.one_piece = True
    file = File(tmp_path, BIG)
    file.upload(client)
    assert server.blobs["team/image"][file.digest] == file.data


def test_sessions_that_are_always_lost_end(server: RegistryServer, client: RegistryClient, tmp_path: Path) -> None:
    server.faults.append(Fault("PATCH", "/uploads/", 404, times=99))
    with pytest.raises(RegistryError, match="404"):
        File(tmp_path, BIG).upload(client)


def test_another_process_goes_on(server: RegistryServer, tmp_path: Path) -> None:
    file = File(tmp_path, BIG)
    with client_of(server) as first:
        server.cut(2 * CHUNK + 9)
        server.faults.append(Fault("GET", "/uploads/", 503, times=99))
        with pytest.raises(RegistryError):
            file.upload(first)
    server.faults.clear()
    before = server.received()
    assert before == 2 * CHUNK + 9
    with client_of(server) as second:
        file.upload(second, UploadSession(file.sessions[-1].location))
    assert server.blobs["team/image"][file.digest] == file.data
    assert server.received() == BIG


def test_a_forgotten_session_of_another_process_begins_again(
    server: RegistryServer, client: RegistryClient, tmp_path: Path
) -> None:
    file = File(tmp_path, BIG)
    file.upload(client, UploadSession("/v2/team/image/blobs/uploads/gone"))
    assert server.blobs["team/image"][file.digest] == file.data


@pytest.mark.parametrize("size", [1000, BIG])
def test_a_tampered_file_does_not_arrive(
    server: RegistryServer, client: RegistryClient, tmp_path: Path, size: int
) -> None:
    file = File(tmp_path, size)
    file.path.write_bytes(file.data[:-1] + bytes([file.data[-1] ^ 1]))
    with pytest.raises(HashMismatchError, match=file.digest):
        file.upload(client)
    assert server.blobs == {}
    assert not any(item.method == "PUT" for item in server.log)


@pytest.mark.parametrize("change", [b"", b"longer"])
def test_a_file_of_another_size_is_not_even_begun(
    server: RegistryServer, client: RegistryClient, tmp_path: Path, change: bytes
) -> None:
    file = File(tmp_path, 1000)
    file.path.write_bytes(file.data + change if change else file.data[:-1])
    with pytest.raises(HashMismatchError, match="bytes, not 1000"):
        file.upload(client)
    assert server.writes() == []


def test_a_file_that_has_gone(client: RegistryClient, tmp_path: Path) -> None:
    file = File(tmp_path, 1000)
    file.path.unlink()
    with pytest.raises(HashMismatchError, match="No such file"):
        file.upload(client)


class TestMount:
    """A mount is an optimisation: every refusal becomes an upload."""

    @pytest.fixture
    def file(self, server: RegistryServer, tmp_path: Path) -> File:
        file = File(tmp_path, BIG)
        with client_of(server, "team/source") as source:
            file.upload(source)
        server.forget_log()
        return file

    def test_mounted(self, server: RegistryServer, client: RegistryClient, file: File) -> None:
        assert client.mount_blob(file.digest, server.repository("team/source")) is None
        assert file.digest in server.blobs["team/image"]
        assert server.received() == 0

    def test_refused_by_202_its_session_is_used(
        self, server: RegistryServer, client: RegistryClient, file: File
    ) -> None:
        server.refuse_mounts = True
        session = client.mount_blob(file.digest, server.repository("team/source"))
        assert session is not None
        file.upload(client, session)
        assert file.digest in server.blobs["team/image"]
        assert [item.method for item in server.log].count("POST") == 1

    @pytest.mark.parametrize("status", [400, 403, 404, 405])
    def test_refused_by_an_error(self, server: RegistryServer, client: RegistryClient, file: File, status: int) -> None:
        server.faults.append(Fault("POST", "mount=", status))
        session = client.mount_blob(file.digest, server.repository("team/source"))
        assert session is not None
        file.upload(client, session)
        assert file.digest in server.blobs["team/image"]


class TestManifests:
    BODY = b'{"schemaVersion":2}'
    DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"

    def test_put_and_read_back(self, server: RegistryServer, client: RegistryClient) -> None:
        assert client.manifest_digest("1.0") is None
        assert client.get_manifest("1.0") is None
        client.put_manifest("1.0", self.BODY, "application/x")
        assert client.manifest_digest("1.0") == self.DIGEST == client.manifest_digest(self.DIGEST)
        assert client.get_manifest("1.0") == self.BODY == client.get_manifest(self.DIGEST)
        assert server.manifests["team/image"][self.DIGEST] == (self.BODY, "application/x")

    def test_a_manifest_with_missing_parts_is_refused(self, client: RegistryClient) -> None:
        body = b'{"config": {"digest": "sha256:%s"}}' % (b"0" * 64)
        with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"):
            client.put_manifest("1.0", body, "application/x")

    def test_tags_come_in_pages(self, server: RegistryServer, client: RegistryClient) -> None:
        server.page_size = 2
        names = [f"1.{number}" for number in range(7)]
        for name in names:
            client.put_manifest(name, self.BODY, "application/x")
        assert client.tags() == tuple(names)

    def test_a_registry_that_answers_something_else_is_caught(
        self, server: RegistryServer, client: RegistryClient
    ) -> None:
        server.manifests["team/image"] = {self.DIGEST: (b"{}", "application/x")}
        with pytest.raises(RegistryError, match="not the manifest of that digest"):
            client.get_manifest(self.DIGEST)

    def test_an_endless_answer_is_cut_off(self, server: RegistryServer, client: RegistryClient) -> None:
        server.manifests["team/image"] = {self.DIGEST: (bytes(9 << 20), "application/x")}
        with pytest.raises(RegistryError, match="larger than"):
            client.get_manifest(self.DIGEST)

    @pytest.mark.parametrize("body", [b"[]", b"{}", b"nonsense", b'{"tags": 5}'])
    def test_a_nonsense_list_of_tags(self, server: RegistryServer, client: RegistryClient, body: bytes) -> None:
        server.faults.append(Fault("GET", "/tags/", 200, body=body))
        with pytest.raises(RegistryError, match="no list of tags"):
            client.tags()


class TestAuthentication:
    def push(self, server: RegistryServer, credentials: GivenCredentials, tmp_path: Path, size: int = BIG) -> File:
        file = File(tmp_path, size)
        with client_of(server, credentials=credentials) as client:
            client.present_blobs({file.digest: size, "sha256:" + "1" * 64: 1, "sha256:" + "2" * 64: 1})
            file.upload(client)
        assert server.blobs["team/image"][file.digest] == file.data
        return file

    @pytest.mark.parametrize("auth", ["basic", "bearer"])
    def test_the_store_is_asked_for_the_registry(self, server: RegistryServer, tmp_path: Path, auth: str) -> None:
        server.auth = auth
        credentials = GivenCredentials({server.host: GOOD})
        self.push(server, credentials, tmp_path)
        assert set(credentials.asked) == {server.host}

    def test_nobody_is_asked_where_nothing_is_needed(self, server: RegistryServer, tmp_path: Path) -> None:
        credentials = GivenCredentials({server.host: GOOD})
        self.push(server, credentials, tmp_path)
        assert credentials.asked == []
        assert {item.authorization for item in server.log} == {""}

    def test_one_token_for_one_scope(self, server: RegistryServer, tmp_path: Path) -> None:
        """However many threads want it at the same time."""
        server.auth = "bearer"
        self.push(server, GivenCredentials({server.host: GOOD}), tmp_path)
        assert [item["scope"] for item in server.token_requests] == [["repository:team/image:pull,push"]]
        assert server.token_requests[0]["service"] == ["test registry"]

    def test_a_mount_has_both_scopes_in_one_token(self, server: RegistryServer, tmp_path: Path) -> None:
        server.auth = "bearer"
        credentials = GivenCredentials({server.host: GOOD})
        file = self.push(server, credentials, tmp_path)
        with client_of(server, "team/other", credentials=credentials) as client:
            assert client.mount_blob(file.digest, server.repository("team/image")) is None
        assert server.token_requests[-1]["scope"] == ["repository:team/other:pull,push", "repository:team/image:pull"]

    def test_an_identity_token_is_changed_for_an_access_token(self, server: RegistryServer, tmp_path: Path) -> None:
        server.auth = "bearer"
        self.push(server, GivenCredentials({server.host: Credential(identity_token="correct-horse")}), tmp_path)
        assert server.token_requests[0]["grant_type"] == ["refresh_token"]

    def test_an_expired_token_is_renewed_in_the_middle_of_an_upload(
        self, server: RegistryServer, tmp_path: Path
    ) -> None:
        server.auth = "bearer"
        file = File(tmp_path, BIG)
        with client_of(server, credentials=GivenCredentials({server.host: GOOD})) as client:
            told = 0

            def progress(amount: int) -> None:
                nonlocal told
                told += amount
                if told > CHUNK and len(server.token_requests) == 1:
                    server.tokens.clear()

            client.upload_blob(file.path, file.digest, BIG, progress=progress)
        assert server.blobs["team/image"][file.digest] == file.data
        assert len(server.token_requests) == 2
        assert told == BIG

    @pytest.mark.parametrize("auth", ["basic", "bearer"])
    def test_wrong_credentials_are_said_and_not_shown(self, server: RegistryServer, auth: str) -> None:
        """The token server of this test even quotes the header; no secret reaches the message."""
        server.auth = auth
        credentials = GivenCredentials({server.host: Credential("user", "wrong-horse")})
        with client_of(server, credentials=credentials) as client, pytest.raises(RegistryError) as caught:
            client.tags()
        assert "401" in caught.value.message
        assert f"docker login {server.host}" in str(caught.value.hint)
        for secret in ("wrong-horse", "dXNlcjp3cm9uZy1ob3JzZQ=="):
            assert secret not in caught.value.message

    def test_anonymous_where_a_login_is_needed(self, server: RegistryServer) -> None:
        server.auth = "basic"
        with client_of(server) as client, pytest.raises(RegistryError, match="401"):
            client.tags()

    @pytest.mark.parametrize("auth", ["basic", "bearer"])
    def test_uploads_to_a_storage_server_carry_no_credentials(
        self, server: RegistryServer, tmp_path: Path, auth: str
    ) -> None:
        server.auth = auth
        with storage_server(server) as storage:
            self.push(server, GivenCredentials({server.host: GOOD}), tmp_path)
        there = [item for item in server.log if item.host == storage]
        assert {item.method for item in there} == {"PATCH", "PUT"}
        assert {item.authorization for item in there} == {""}
        assert all(item.authorization for item in server.log if item.host == server.host and "/uploads/" in item.path)

    def test_a_redirect_to_another_origin_carries_no_credentials(self, server: RegistryServer) -> None:
        server.auth = "basic"
        digest = "sha256:" + "0" * 64
        with (
            storage_server(server) as storage,
            client_of(server, credentials=GivenCredentials({server.host: GOOD})) as client,
        ):
            server.faults.append(
                Fault("HEAD", "/blobs/", 307, headers={"Location": f"http://{storage}/v2/team/image/blobs/{digest}"})
            )
            server.blobs["team/image"] = {digest: b"x"}
            assert client.present_blobs({digest: 1}) == {digest}
        assert [item.authorization for item in server.log if item.host == storage] == [""]


class TestPlainHttp:
    def test_an_upload_is_not_sent_to_plain_http_elsewhere(
        self, server: RegistryServer, client: RegistryClient, tmp_path: Path
    ) -> None:
        server.faults.append(
            Fault("POST", "/uploads/", 202, headers={"Location": "http://storage.example.com/x?sig=secret"})
        )
        with pytest.raises(RegistryError, match="plain http") as caught:
            File(tmp_path, BIG).upload(client)
        assert "secret" not in caught.value.message

    def test_a_host_that_is_not_this_machine_is_never_asked_in_plain(self) -> None:
        client = RegistryClient("registry.invalid/a", GivenCredentials(), log=RecordingLog(), retries=WAITLESS)
        with contextlib.closing(client), pytest.raises(RegistryError, match=r"https://registry\.invalid/v2/"):
            client.tags()

    def test_insecure_tries_https_first(self) -> None:
        client = RegistryClient(
            "registry.invalid/a", GivenCredentials(), log=RecordingLog(), retries=WAITLESS, insecure=True
        )
        with contextlib.closing(client), pytest.raises(RegistryError, match=r"https://registry\.invalid/v2/"):
            client.tags()


def test_what_is_no_registry_is_said(server: RegistryServer, client: RegistryClient) -> None:
    server.faults.append(Fault("GET", "/v2/$", 404, times=99))
    with pytest.raises(RegistryError, match="no registry|https://"):
        client.tags()


def test_a_dead_registry_can_be_told_from_a_wrong_one(tmp_path: Path) -> None:
    with running_registry() as gone:
        pass
    with client_of(gone) as client, pytest.raises(RegistryError) as caught:
        client.tags()
    assert gone.host in caught.value.message
    assert "again" in str(caught.value.hint)


@pytest.mark.parametrize(
    "target", ["localhost:5000/a:tag", "localhost/a@sha256:" + "0" * 64, "image", "localhost:5000/UPPER"]
)
def test_a_target_is_a_repository(target: str) -> None:
    with pytest.raises(ConfigError):
        RegistryClient(target, GivenCredentials(), log=RecordingLog())
