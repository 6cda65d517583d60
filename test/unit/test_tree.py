"""Trees: sorted, checked, compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.errors import ConfigError
from lockyard.tree import File, Tree, check_relative, diff

names = st.from_regex(r"[a-z]{1,4}", fullmatch=True)
trees = st.dictionaries(names, st.binary(max_size=8).map(File), max_size=6).map(Tree)


@given(trees, trees)
def test_diff_leads_from_old_to_new(old: Tree, new: Tree) -> None:
    """Applying the changes to the old tree gives the new one."""
    files = dict(old)
    for change in diff(old, new):
        if change.new is None:
            del files[change.path]
        else:
            files[change.path] = change.new
    assert Tree(files) == new
    assert (old.digest == new.digest) == (old == new)


@pytest.mark.parametrize("path", ["/a", "..", "a/../b", "a//b", "", ".", "a\\b", "a\nb"])
def test_paths_cannot_leave(path: str) -> None:
    """Only plain relative paths."""
    with pytest.raises(ConfigError):
        check_relative(path)


def test_a_file_is_no_directory() -> None:
    """One path cannot be both."""
    with pytest.raises(ConfigError, match="both a file and a directory"):
        Tree({"a": File(b""), "a/b": File(b"")})
