"""Prefix placeholders; that the rules are rattler's is for the integration test to say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.errors import BuildError
from lockyard.oci.placeholders import python_shebang, replace_binary, replace_text, shebang

OLD = "/placeholder/" + "x" * 60
CHUNK = st.one_of(st.binary(max_size=12), st.just(OLD.encode()), st.just(b"\0"), st.just(OLD.encode("utf-16-le")))


@given(st.lists(CHUNK, max_size=12).map(b"".join))
def test_binaries_keep_their_length_and_lose_the_placeholder(data: bytes) -> None:
    out = replace_binary(data, OLD, "/opt/conda")
    assert len(out) == len(data)
    assert OLD.encode() not in out
    assert out.count(b"/opt/conda") >= data.count(OLD.encode())


@given(st.lists(CHUNK, max_size=12).map(b"".join))
def test_text_without_the_placeholder_is_untouched(data: bytes) -> None:
    plain = data.replace(b"/", b"").replace(b"#!", b"")
    assert replace_text(plain, OLD, "/opt/conda") == plain
    assert replace_binary(plain, OLD, "/opt/conda") == plain


def test_a_string_is_filled_up_before_its_end() -> None:
    data = b"\1" + OLD.encode() + b"/a:" + OLD.encode() + b"/b\0next"
    out = replace_binary(data, OLD, "/new")
    assert out == b"\1/new/a:/new/b".ljust(len(data) - 5, b"\0") + b"\0next"


def test_a_longer_prefix_does_not_fit_into_a_binary() -> None:
    with pytest.raises(BuildError, match="longer than the placeholder"):
        replace_binary(OLD.encode() + b"\0", OLD, OLD + "y")
    assert replace_binary(b"nothing", OLD, OLD + "y") == b"nothing"
    assert replace_text(OLD.encode(), OLD, OLD + "y") == OLD.encode() + b"y"


@pytest.mark.parametrize(
    ("line", "prefix", "expected"),
    [
        (f"#!{OLD}/bin/python -E", "/opt", "#!/opt/bin/python -E"),
        (f"#!{OLD}/bin/python3.11 -E", "/a b", "#!/bin/sh\n'''exec' \"/a b/bin/python3.11\" -E \"$0\" \"$@\" #'''"),
        (f"#!{OLD}/bin/perl -w", "/a b", "#!/usr/bin/env perl -w"),
        ("#!/bin/sh -e", "/a b", "#!/bin/sh -e"),
        (f"#!{OLD}/bin/perl", "/" + "l" * 130, "#!/usr/bin/env perl"),
        ("#!python", "/opt", "#!python"),
    ],
)
def test_first_lines_stay_runnable(line: str, prefix: str, expected: str) -> None:
    assert shebang(line, OLD, prefix) == expected


def test_generated_scripts_find_their_python() -> None:
    assert python_shebang("/opt/conda/bin/python3.11") == "#!/opt/conda/bin/python3.11"
    assert python_shebang("/" + "l" * 130).startswith("#!/bin/sh\n'''exec' \"/lll")
