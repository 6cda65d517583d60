"""Channels and package addresses: what is accepted, what leaves the root, what would leak."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.conda.channels import parse_channel, parse_channels, parse_package_url, redact
from lockyard.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "name", "base"),
    [
        ("conda-forge", "conda-forge", "https://conda.anaconda.org/conda-forge"),
        ("https://conda.anaconda.org/conda-forge/", "conda-forge", "https://conda.anaconda.org/conda-forge"),
        ("https://host.example/a/team", "https://host.example/a/team", "https://host.example/a/team"),
        ("file:channel", "channel", "file:channel"),
        ("file:channels/demo", "demo", "file:channels/demo"),
        ("file:///srv/demo", "demo", "file:///srv/demo"),
    ],
)
def test_a_channel_has_a_name_for_specs_and_a_base(text: str, name: str, base: str) -> None:
    channel = parse_channel(text, source="variants.toml")
    assert (channel.name, channel.base, channel.is_local) == (name, base, text.startswith("file:"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "../x",
        "file:../x",
        "file:a/../../x",
        "file:",
        "file:/srv/x",
        "file:///srv/../x",
        "file:%2e%2e/x",
        "https://<host.example/chan",
        "https://me:secret@host.example/chan",
        "https://host.example/t/abcdef/chan",
        "https://host.example/a/%2e%2e/b",
        "ftp://host.example/chan",
        "https:///chan",
        "https://[host/chan",
        "a b",
        "conda-forge\n",
        "-x",
    ],
)
def test_a_channel_that_could_escape_or_leak_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_channel(text, source="variants.toml")
    assert caught.value.message.startswith("variants.toml: ")
    assert "secret" not in caught.value.message
    assert "abcdef" not in caught.value.message


def test_two_channels_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="both called 'conda-forge'"):
        parse_channels(["conda-forge", "file:conda-forge"], source="variants.toml")


def test_a_package_address_is_taken_apart() -> None:
    address = parse_package_url("https://host.example/team/noarch/ld_impl_linux-64-2.40-h1_0.tar.bz2", source="x")
    assert (address.name, address.version, address.build) == ("ld_impl_linux-64", "2.40", "h1_0")
    assert (address.base, address.subdir, address.channel) == (
        "https://host.example/team",
        "noarch",
        "https://host.example/team",
    )


def test_an_epoch_may_be_encoded() -> None:
    assert parse_package_url("file:c/noarch/a-1%212.0-0.conda", source="x").version == "1!2.0"


@pytest.mark.parametrize(
    "url",
    [
        "file:channel/linux-64/../../../etc/a-1-0.conda",
        "file:channel/linux-64/a-1-0.zip",
        "file:channel/linux-64/a-0.conda",
        "file:channel/Linux/a-1-0.conda",
        "a-1-0.conda",
        "linux-64/a-1-0.conda",
        "https://host.example/linux-64/..-1-0.conda",
        "https://host.example/c/linux-64/a%2Fb-1-0.conda",
        "https://host.example/c/linux-64/a-1-0.conda?x=1",
        "https://host.example/c/linux-64/.a-1-0.conda",
        "https://linux-64/a-1-0.conda",
    ],
)
def test_an_address_that_is_no_safe_package_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        parse_package_url(url, source="x")


@given(st.text(max_size=60))
def test_no_text_makes_a_dangerous_file_name(text: str) -> None:
    """Whatever is accepted has a file name that is one plain path component."""
    for url in (text, f"https://h.example/c/noarch/{text}", f"file:{text}", f"file:c/noarch/{text}-1-0.conda"):
        try:
            address = parse_package_url(url, source="x")
        except ConfigError:
            continue
        for part in (address.file_name, address.name, address.version, address.build, address.subdir):
            assert "/" not in part
            assert part not in {"", ".", ".."}
            assert not part.startswith(".")


def test_messages_carry_no_credentials() -> None:
    assert redact("GET https://me:pw@h.example/t/tok/x") == "GET https://***@h.example/t/***/x"
