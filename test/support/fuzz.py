"""Inputs that are almost right: bytes that no parser may stumble over, made from files that are right."""

from hypothesis import strategies as st

TOKENS = (
    b"", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"'", b'"', b"[", b"]", b"{", b"}", b"=", b"==", b"<", b">=",
    b"!=", b"~=", b",", b"|", b"(", b")", b"*", b"^", b"$", b"${", b"#", b"::", b":", b"/", b"../", b"\\", b"-", b".", b"_", b"!",
    b"+", b"@", b"%", b" ", b"\t", b"9" * 30, b"a" * 300, b"1.2.*", b"@EXPLICIT", b"https://", b"file:", b"nan", b"inf", b"1e999",
    b"0x1", b"1979-05-27", b"true", b"{{", b"{%", b"{#", b"%}", b"}}",
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, *seeds: bytes) -> bytes:
    """One of the seeds with a few places cut out, doubled or replaced; or arbitrary bytes."""
    data = draw(st.one_of(st.sampled_from(seeds), st.binary(max_size=60)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 12)))
        piece = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4), st.just(data[start:end] * 2)))
        data = data[:start] + piece + data[end:]
    return data
