"""`bases.json` read and written."""

import pytest

from lockyard.errors import ConfigError
from lockyard.oci.basefile import BuiltBase, format_bases, parse_bases

DIGEST = f"sha256:{'a' * 64}"
BASES = {
    "cpu": {"linux-64": BuiltBase(DIGEST, f"example.com/b:1@{DIGEST}", DIGEST)},
    "gpu": {"linux-64": BuiltBase(DIGEST, None, DIGEST)},
}


def test_what_is_written_is_read() -> None:
    text = format_bases(BASES)
    assert parse_bases(text, "bases.json") == BASES
    assert format_bases(parse_bases(text, "bases.json")) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "bases.json is not a list of bases"),
        (b'{"schema": 2, "bases": {}}', "bases.json: schema 2 is newer than this Lockyard knows"),
        (b'{"schema": 1, "bases": {"cpu": {"linux-64": {"digest": "x", "reference": null, "inputs": ""}}}}', "digest|not a list"),
        (b'{"schema": 1, "bases": {"cpu": {"linux-64": {"other": "x"}}}}', "is not a list of bases"),
        (b'{"schema": 1, "bases": []}', "is not a list of bases"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_bases(text, "bases.json")
