"""What somebody may have meant."""

import difflib
from collections.abc import Mapping


def nearest(word: str, words: Mapping[str, object] | tuple[str, ...] | list[str]) -> str | None:
    """Return `did you mean X?` for a typo of one of `words`."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else None
