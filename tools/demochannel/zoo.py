"""Small packages with every awkward thing that an installer must get right."""

from datetime import datetime

from demochannel import tree
from demochannel.packages import PLACEHOLDER, PLACEHOLDER_BYTES, Package

SCRIPT = f'#!{PLACEHOLDER}/bin/python\nprint("{PLACEHOLDER}/share")\n'
BINARY = b"\x7fELF\0\0" + PLACEHOLDER_BYTES + b"/share/zoo\0tail\0" + PLACEHOLDER_BYTES + b"/lib:"
BINARY += PLACEHOLDER_BYTES + b"/lib64\0END\0"
POST_LINK = b"""\
#!/bin/sh
echo "made by $PKG_NAME" > "$PREFIX/share/postlinkzoo/made-by-script.txt"
echo "postlinkzoo says hello" >> "$PREFIX/.messages.txt"
"""


def zoo_packages(timestamp: datetime) -> tuple[Package, ...]:
    """Make them all."""
    return link_zoo(timestamp), noarch_zoo(timestamp), post_link_zoo(timestamp)


def link_zoo(timestamp: datetime) -> Package:
    """Make a package of prefixes in text and binary files, links of all sorts and unusual modes."""
    return Package(
        name="linkzoo",
        version="1.0",
        build_prefix="h0",
        timestamp=timestamp,
        license="MIT",
        summary="Awkward files",
        depends=("python >=3.9",),
        files={
            "bin/zoo": tree.file(SCRIPT.encode(), 0o755),
            "bin/zoo-sh": tree.file(f"#!/bin/sh\necho {PLACEHOLDER} {PLACEHOLDER}/lib\n".encode(), 0o755),
            "etc/conda/activate.d/zoo.sh": tree.file(b"export ZOO=1\n"),
            "lib/dangling": tree.link("nowhere"),
            "lib/libzoo.bin": tree.file(BINARY, 0o755),
            "share/zoo/__pycache__/empty.txt": tree.file(b""),
            "share/zoo/data.txt": tree.file(b"data\n"),
            "share/zoo/executable": tree.file(b"#!/bin/sh\n", 0o755),
            "share/zoo/group-writable.txt": tree.file(b"group\n", 0o664),
            "share/zoo/link.txt": tree.link("data.txt"),
            "share/zoo/name with spaces é.txt": tree.file(b"name\n"),
            "share/zoo/read-only.txt": tree.file(b"read\n", 0o444),
            "share/zoo-folder": tree.link("zoo"),
        },
    )


def noarch_zoo(timestamp: datetime) -> Package:
    """Make a noarch Python package with entry points, a script, a link between modules and data outside them."""
    module = (
        b"def main():\n    print('hi')\n\n\nclass Keeper:\n    @staticmethod\n    def run():\n        print('keeper')\n"
    )
    return Package(
        name="noarchzoo",
        version="1.0",
        build_prefix="py",
        timestamp=timestamp,
        license="MIT",
        summary="Awkward noarch files",
        depends=("python >=3.9",),
        noarch="python",
        entry_points=("zoo-main = noarchzoo.cli:main", "zoo-keeper = noarchzoo.cli:Keeper.run"),
        files={
            "python-scripts/zoo-script": tree.file(f"#!{PLACEHOLDER}/bin/python\nprint(1)\n".encode(), 0o755),
            "share/man/man1/zoo.1": tree.file(b".TH ZOO 1\n"),
            "site-packages/noarchzoo/__init__.py": tree.file(b""),
            "site-packages/noarchzoo/cli.py": tree.file(module),
            "site-packages/noarchzoo/link.py": tree.link("cli.py"),
        },
    )


def post_link_zoo(timestamp: datetime) -> Package:
    """Make a package with a post-link script. Nothing depends on it."""
    return Package(
        name="postlinkzoo",
        version="1.0",
        build_prefix="h0",
        timestamp=timestamp,
        license="MIT",
        summary="A post-link script",
        files={
            "bin/.postlinkzoo-post-link.sh": tree.file(POST_LINK, 0o755),
            "share/postlinkzoo/readme.txt": tree.file(b"A script adds a file beside this one.\n"),
        },
    )
