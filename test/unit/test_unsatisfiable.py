"""The solver's tree, shortened without losing what it says."""

from lockyard.app.unsatisfiable import condensed

TREE = """\
├─ a <2 would require
│  ├─ python 3.12.10, which conflicts with the versions reported above.
│  ├─ python 3.12.9, which conflicts with the versions reported above.
│  ├─ python 3.12.9 | 3.12.8, which conflicts with the versions reported above.
│  ├─ python 3.12.1, which conflicts with the versions reported above.
│  └─ python 3.12.0, which conflicts with the versions reported above.
└─ b 1, which conflicts with the versions reported above.
   ├─ python 3.12.10, which conflicts with the versions reported above.
   └─ c 1, which conflicts with the versions reported above."""


def test_lines_that_differ_in_the_version_only_become_one() -> None:
    assert condensed(TREE.splitlines()) == [
        "├─ a <2 would require",
        "│  └─ python 3.12.10 | 3.12.9 | ... | 3.12.0, which conflicts with the versions reported above.",
        "└─ b 1, which conflicts with the versions reported above.",
        "   ├─ python 3.12.10, which conflicts with the versions reported above.",
        "   └─ c 1, which conflicts with the versions reported above.",
    ]
    assert condensed([]) == []
