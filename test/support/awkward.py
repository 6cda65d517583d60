"""Packages with everything that an installer must get right."""

from support.packages import PLACEHOLDER, Node, Package

P = PLACEHOLDER.encode()


def packages() -> list[Package]:
    """Packages that fit together, clobbers included; the order is not the order of installation."""
    text = {
        "bin/flags": Node(b"#!" + P + b"/bin/python3.11 -E -s\nx " + P + b"\n", 0o755, prefix="text"),
        "bin/blanks": Node(b"#!  " + P + b"/bin/perl -w\n", 0o755, prefix="text"),
        "bin/no-newline": Node(b"#!" + P + b"/bin/sh", 0o755, prefix="text"),
        "bin/long-anyway": Node(b"#!/bin/sh " + b"y" * 140 + b"\n" + P + b"\n", 0o755, prefix="text"),
        "bin/latin": Node(b"#!" + P + b"/bin/p\xe9\n" + P + b"\xe9\n", 0o755, prefix="text"),
        "bin/relative": Node(b"#!python\n" + P, 0o755, prefix="text"),
        "share/latin.txt": Node(b"\xe9 " + P + b"\xff\n", prefix="text"),
        "share/read-only.txt": Node(P, 0o444, prefix="text"),
        "share/wide.txt": Node((PLACEHOLDER + "/x\n").encode("utf-16-le"), prefix="text"),
        "share/none.txt": Node(b"nothing to replace\n", prefix="text"),
    }
    binary = {
        "lib/wide.bin": Node(
            b"\x7fELF\0\0" + (PLACEHOLDER + "/x").encode("utf-16-le") + b"\0\0tail" + P + b"/y\0end",
            0o755,
            prefix="binary",
        ),
        "lib/twice.bin": Node(b"\0" + P + b"/lib:" + P + b"/lib64\0END" + P + b"\0", prefix="binary"),
        "lib/open.bin": Node(b"\0" + P + b"/abc", prefix="binary"),
        "lib/wide-big.bin": Node(b"\1\1" + (PLACEHOLDER + "/x").encode("utf-16-be") + b"\0\0z", prefix="binary"),
        "lib/wider.bin": Node((PLACEHOLDER + "/x").encode("utf-32-le") + bytes(4) + b"z", prefix="binary"),
    }
    plain = {
        "share/data.txt": Node(b"data\n"),
        "share/exec": Node(b"#!/bin/sh\n", 0o755),
        "share/group.txt": Node(b"g\n", 0o664),
        "share/all.txt": Node(b"a\n", 0o666),
        "share/empty": Node(b""),
        "share/spaces and é.txt": Node(b"name\n"),
        "share/" + "long-" * 30 + "name/" + "deep/" * 30 + "file.txt": Node(b"long\n"),
        "share/link.txt": Node(link="data.txt"),
        "share/dot-link.txt": Node(link="./data.txt"),
        "share-folder": Node(link="share"),
        "lib/dangling": Node(link="nowhere"),
        "var/empty": Node(directory=True),
        "bin/setuid": Node(b"#!/bin/sh\n", 0o4755),
        "bin/setgid": Node(b"#!/bin/sh\n", 0o2775),
        "bin/hard-a": Node(b"#!/bin/sh\nexit 0\n", 0o755),
        "bin/hard-b": Node(hard="bin/hard-a", mode=0o755),
    }
    python = {"bin/python3.11": Node(b"\x7fELF", 0o755), "bin/python": Node(link="python3.11")}
    noarch = {
        "site-packages/zoo/__init__.py": Node(b""),
        "site-packages/zoo/cli.py": Node(b"def main(): pass\n"),
        "site-packages/zoo/l.py": Node(link="cli.py"),
        "python-scripts/zoo-script": Node(b"#!" + P + b"/bin/python\nprint(1)\n", 0o755, prefix="text"),
        "share/man/zoo.1": Node(b".TH\n"),
    }
    old = {
        "bin/old": Node(b"#!" + P + b"/bin/sh\n", 0o755, prefix="text"),
        "lib/old.so": Node(b"\0" + P + b"/lib\0", prefix="binary"),
        "share/old.txt": Node(b"old\n"),
        "share/not-utf-8-\udce9.txt": Node(b"not listed\n", listed=False),
        "share/old-link": Node(link="old.txt"),
        "share/old.txt.hard": Node(hard="share/old.txt"),
        "share/old-twice": Node(P + b"/a:" + P + b"/b " + P, prefix="text"),
        "bin/old-again": Node(hard="bin/old", mode=0o755, prefix="text"),
    }
    one = {"share/c/both.txt": Node(b"one\n"), "share/c/one.txt": Node(b"1")}
    two = {"share/c/both.txt": Node(b"two\n"), "share/c/exec": Node(b"two", 0o755)}
    three = {"share/c/both.txt": Node(b"three\n"), "share/c/exec": Node(b"three")}
    return [
        Package("text", files=text, extra={"constrains": ["foo <2"]}),
        Package("binary", files=binary),
        Package("plain", files=plain, extra={"track_features": "a b", "license_family": "MIT"}),
        Package("python", "3.11.4", "h_0_cpython", python, extra={"python_site_packages_path": "lib/py/site-packages"}),
        Package(
            "zoo", files=noarch, depends=["python"], noarch="python",
            entry_points=["zoo = zoo.cli:main", "zoo-keeper=zoo.cli:Keeper.run"],
        ),
        Package("old", files=old, old=True),
        Package("clobber-one", files=one),
        Package("clobber-two", files=two, depends=["clobber-three"]),
        Package("clobber-three", files=three),
    ]  # fmt: skip
