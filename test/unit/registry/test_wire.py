"""What registries say is read strictly, and shown bounded."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.errors import RegistryError
from lockyard.registry import wire


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="test"', [("basic", {"realm": "test"})]),
        (
            'Bearer realm="https://auth.example.com/token",service="reg",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {"realm": "https://auth.example.com/token", "service": "reg", "scope": "repository:a/b:pull,push"},
                )
            ],
        ),
        (
            'Bearer Realm="x", error="invalid_token" , Basic realm="y"',
            [("bearer", {"realm": "x", "error": "invalid_token"}), ("basic", {"realm": "y"})],
        ),
        (r'Basic realm="a\"b"', [("basic", {"realm": 'a"b'})]),
        ("Negotiate, Basic realm=plain", [("negotiate", {}), ("basic", {"realm": "plain"})]),
        ("", []),
        ('realm="orphan"', []),
    ],
)
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(item.scheme, dict(item.parameters)) for item in wire.parse_challenges(header)] == expected


@given(st.text(max_size=200))
def test_no_header_makes_the_reader_fail(header: str) -> None:
    wire.parse_challenges(header)
    wire.received(header)
    wire.next_page(header, "https://host.example/v2/")


def test_a_hostile_header_is_read_in_linear_time() -> None:
    assert len(wire.parse_challenges("a=" * 20000 + '"')) <= 1


@pytest.mark.parametrize(
    ("header", "expected"), [("0-9", 10), ("bytes=0-9", 10), ("0-0", 0), (None, None), ("5-9", None), ("x", None)]
)
def test_range(header: str | None, expected: int | None) -> None:
    assert wire.received(header) == expected


def test_an_error_shows_code_and_message_without_control_characters() -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "no\n\x1b[31m"}, {"code": "OTHER"}]}).encode()
    assert wire.error_text(403, body) == "HTTP 403 Forbidden; DENIED: no  [31m; OTHER"


@given(st.binary(max_size=400))
def test_an_error_of_any_body_is_one_bounded_line(body: bytes) -> None:
    text = wire.error_text(500, body)
    assert text.isprintable()
    assert len(text) <= 300


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["errors", "code", "message", "details"]), inner)
        ),
    )
)
def test_an_error_of_any_json_is_one_bounded_line(value: object) -> None:
    text = wire.error_text(400, json.dumps(value).encode())
    assert text.isprintable()
    assert len(text) <= 300


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/v2/a/blobs/uploads/1?state=x", "https://reg.example/v2/a/blobs/uploads/1?state=x"),
        ("https://storage.example/put", "https://storage.example/put"),
        ("http://127.0.0.1:5000/x", "http://127.0.0.1:5000/x"),
    ],
)
def test_follow(location: str, expected: str) -> None:
    assert wire.follow("https://reg.example/v2/", location, allow_plain=False) == expected


@pytest.mark.parametrize(
    "location", ["http://reg.example/x", "ftp://reg.example/x", "file:///etc/passwd", "http://[::2]/x", None, ""]
)
def test_data_never_leaves_over_plain_http(location: str | None) -> None:
    with pytest.raises(RegistryError):
        wire.follow("https://reg.example/v2/", location, allow_plain=False)


def test_plain_http_where_it_is_allowed() -> None:
    assert wire.follow("http://reg.example/v2/", "/x", allow_plain=True) == "http://reg.example/x"


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1", "127.1.2.3:80", "[::1]:5000"])
def test_this_machine(host: str) -> None:
    assert wire.is_loopback(host)


@pytest.mark.parametrize(
    "host", ["localhost.example.com", "127.0.0.1.nip.io", "10.0.0.1", "[::2]", "", "localhost@evil.example"]
)
def test_not_this_machine(host: str) -> None:
    assert not wire.is_loopback(host)


def test_the_digest_joins_the_query() -> None:
    digest = "sha256:" + "a" * 64
    assert wire.with_digest("https://h/u", digest) == f"https://h/u?digest=sha256%3A{'a' * 64}"
    assert wire.with_digest("https://h/u?s=1", digest) == f"https://h/u?s=1&digest=sha256%3A{'a' * 64}"


def test_an_address_is_shown_without_its_secrets() -> None:
    assert wire.shown("https://me:pw@host.example:8/a/b?sig=secret#x") == "https://host.example:8/a/b"


def test_a_credential_is_never_shown() -> None:
    assert "secret" not in repr(wire.Credential("me", "secret", "secret"))
