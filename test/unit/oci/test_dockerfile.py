"""Dockerfiles that need no container: what they do to an image, and where they are wrong."""

import gzip
import io
import tarfile
from typing import Any

import pytest

from lockyard.errors import BuildError
from lockyard.oci.dockerfile import CopyLayer, plan_finish
from lockyard.oci.globs import Ignore
from lockyard.oci.image import Image, empty_image, oci_platform
from lockyard.oci.instructions import kind_of, parse
from lockyard.oci.rootfs import unpacked
from lockyard.oci.rootview import PLAIN, Listing, RootView
from lockyard.oci.shellwords import WordError, expand
from lockyard.tree import File, Tree

START = "ARG ENV_IMAGE\nFROM ${ENV_IMAGE}\n"
TREE = Tree(
    {
        "Dockerfile": File(b""),
        "dirs/etc/a.conf": File(b"a", 0o664),
        "dirs/etc/b.conf": File(b"b"),
        "dirs/bin/run": File(b"#!/bin/sh\n", 0o775),
        "dirs/link": File.link("./etc/a.conf"),
        "other.txt": File(b"other"),
    }
)


def finish(text: str, **args: str) -> tuple[dict[str, Any], list[CopyLayer], Image]:
    image = empty_image(oci_platform("linux-64"), "2026-01-15T00:00:00Z").with_config(Env=["PATH=/opt/conda/bin:/bin"])
    layers = []
    steps = plan_finish(
        parse(START + text, "D"), TREE, args, image.runtime, view=root, unpack=unpacked,
        platform=oci_platform("linux-aarch64"),
    ).steps  # fmt: skip
    for step in steps:
        if isinstance(step, CopyLayer):
            layers.append(step)
        else:
            image = step(image)
    return image.runtime, layers, image


def files(text: str, **args: str) -> dict[str, tuple[str, int, int]]:
    """The entries of the last layer: path → kind, mode, uid."""
    _, layers, _ = finish(text, **args)
    return {entry.path.decode(): (entry.kind, entry.mode, entry.uid) for entry in layers[-1].entries}


def root() -> RootView:
    """A small root file system."""
    view = RootView()
    tables = {"etc/passwd": "root:x:0:0::/root:/bin/sh\nme:x:1000:50::/:/bin/sh\n", "etc/group": "mail:x:8:\n"}
    view.add_listing(Listing(dict.fromkeys(("etc", "usr", "usr/bin", "srv"), PLAIN), {"bin": "usr/bin"}, (), tables))
    return view


def fails(text: str) -> BuildError:
    with pytest.raises(BuildError) as error:
        finish(text)
    return error.value


def test_members_of_the_configuration() -> None:
    runtime, _, image = finish(
        """\
# a comment
ENV A=1 B="two words" \\
    # inside
    C=three
LABEL x=$A "y z"=q
USER 1000:100
WORKDIR /srv
WORKDIR app
ENTRYPOINT ["/bin/tini", "--"]
CMD python -V
EXPOSE 80 53/udp
VOLUME /data /more
STOPSIGNAL SIGINT
"""
    )
    assert runtime == {
        "Env": ["PATH=/opt/conda/bin:/bin", "A=1", "B=two words", "C=three"],
        "Labels": {"x": "1", "y z": "q"},
        "User": "1000:100",
        "WorkingDir": "/srv/app",
        "Entrypoint": ["/bin/tini", "--"],
        "Cmd": ["/bin/sh", "-c", "python -V"],
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Volumes": {"/data": {}, "/more": {}},
        "StopSignal": "SIGINT",
    }
    assert len(image.config["history"]) == 9  # that of WORKDIR app comes with the layer of the new directory
    assert image.validate() == []


def test_arguments_are_substituted() -> None:
    runtime, _, _ = finish("ARG V=0\nARG W=1\nENV V=$V W=${W:-x} X=${NO:-no} Y=${V:+yes} P=$PATH", V="9")
    assert runtime["Env"][1:] == ["V=9", "W=1", "X=no", "Y=yes", "P=/opt/conda/bin:/bin"]


def test_an_argument_must_be_declared() -> None:
    runtime, _, _ = finish("ENV V=$V", V="9")
    assert runtime["Env"][-1] == "V="


def test_arguments_before_from_end_there() -> None:
    steps = plan_finish(parse("ARG ENV_IMAGE\nARG V=1\nFROM $ENV_IMAGE\nENV X=$V", "D"), TREE, {}, {}).steps
    image = empty_image(oci_platform("linux-64"), "x")
    for step in steps:
        assert not isinstance(step, CopyLayer)
        image = step(image)
    assert image.runtime["Env"] == ["X="]


def test_an_entry_point_takes_back_the_command_below_and_shell_counts() -> None:
    image = {"Cmd": ["old"]}
    steps = plan_finish(parse(START + 'SHELL ["/bin/bash", "-c"]\nENTRYPOINT run it', "D"), TREE, {}, image).steps
    below = empty_image(oci_platform("linux-64"), "x").with_config(Cmd=["old"])
    for step in steps:
        assert not isinstance(step, CopyLayer)
        below = step(below)
    assert below.runtime == {"Entrypoint": ["/bin/bash", "-c", "run it"], "Shell": ["/bin/bash", "-c"]}
    runtime, _, _ = finish('CMD ["a"]\nENTRYPOINT ["b"]')
    assert runtime["Cmd"] == ["a"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("COPY other.txt /x/", ["x", "x/other.txt"]),
        ("COPY other.txt /x", ["x"]),
        ("COPY dirs /", ["etc", "etc/a.conf", "etc/b.conf", "link", "usr", "usr/bin", "usr/bin/run"]),
        ("COPY dirs/ .", ["w", "w/bin", "w/bin/run", "w/etc", "w/etc/a.conf", "w/etc/b.conf", "w/link"]),
        ("COPY dirs/etc/*.conf /etc/", ["etc", "etc/a.conf", "etc/b.conf"]),
        ('COPY ["dirs/etc", "other.txt", "/y/"]', ["y", "y/a.conf", "y/b.conf", "y/other.txt"]),
        ("COPY . /all", ["all", "all/Dockerfile", "all/dirs", "all/dirs/bin", "all/dirs/bin/run", "all/dirs/etc",
                         "all/dirs/etc/a.conf", "all/dirs/etc/b.conf", "all/dirs/link", "all/other.txt"]),
        ("ADD other.txt sub/z", ["w", "w/sub", "w/sub/z"]),
        ("COPY other.txt /srv", ["srv", "srv/other.txt"]),
        ("COPY other.txt /bin/", ["usr", "usr/bin", "usr/bin/other.txt"]),
        ("COPY dirs/link /y", ["y"]),
    ],
)  # fmt: skip
def test_copy_places_files(line: str, expected: list[str]) -> None:
    assert sorted(files(f"WORKDIR /w\n{line}")) == expected


def test_copied_modes_do_not_depend_on_the_umask() -> None:
    assert files("COPY dirs /") == {
        "etc": ("directory", 0o755, 0), "usr": ("directory", 0o755, 0), "usr/bin": ("directory", 0o755, 0),
        "usr/bin/run": ("file", 0o755, 0), "etc/a.conf": ("file", 0o644, 0),
        "etc/b.conf": ("file", 0o644, 0), "link": ("symlink", 0o777, 0),
    }  # fmt: skip
    assert files("COPY --chown=1000:50 --chmod=0600 other.txt /x") == {"x": ("file", 0o600, 1000)}


def test_links_in_a_directory_keep_their_text_and_a_link_by_itself_is_followed() -> None:
    _, (layer,), _ = finish("COPY dirs /srv/")
    assert {entry.path: entry.target for entry in layer.entries}[b"srv/link"] == b"./etc/a.conf"
    _, (layer,), _ = finish("COPY dirs/link /x")
    assert [(entry.kind, b"".join(entry.chunks())) for entry in layer.entries] == [("file", b"a")]


def test_owners_are_names_of_the_image_and_new_directories_are_theirs() -> None:
    def owners(text: str) -> dict[str, tuple[int, int]]:
        _, layers, _ = finish(text)
        return {entry.path.decode(): (entry.uid, entry.gid) for entry in layers[-1].entries}

    assert owners("COPY --chown=me other.txt /a/b") == {"a": (1000, 50), "a/b": (1000, 50)}
    assert owners("COPY --chown=me:mail other.txt /x") == {"x": (1000, 8)}
    assert owners("COPY --chown=7 other.txt /srv/x") == {"srv": (0, 0), "srv/x": (7, 7)}
    assert owners("USER me\nWORKDIR /home/me") == {"home": (1000, 50), "home/me": (1000, 50)}


def test_a_workdir_that_is_there_makes_no_layer() -> None:
    runtime, layers, image = finish("WORKDIR /bin")
    assert (runtime["WorkingDir"], layers, len(image.config["history"])) == ("/bin", [], 1)


def test_arguments_of_the_platform_and_from_before_the_stage() -> None:
    text = "ARG ENV_IMAGE\nARG V=1\nFROM ${ENV_IMAGE}\nARG V\nARG TARGETARCH\nARG HTTP_PROXY\nENV X=$V$TARGETARCH$HTTP_PROXY"
    image = empty_image(oci_platform("linux-64"), "x")
    given = {"HTTP_PROXY": "http://user:secret@proxy"}
    for step in plan_finish(parse(text, "D"), TREE, given, {}, platform=oci_platform("linux-64")).steps:
        assert not isinstance(step, CopyLayer)
        image = step(image)
    assert image.runtime["Env"] == ["X=1amd64"]


def test_forms_that_containers_would_not_need() -> None:
    runtime, _, image = finish(
        "ENV OLD a   'b  c'\nEXPOSE 8000-8002/udp\nMAINTAINER me\nHEALTHCHECK --interval=1m30s --retries=3 CMD true\n"
    )
    assert runtime["Env"][-1] == "OLD=a   b  c"
    assert sorted(runtime["ExposedPorts"]) == ["8000/udp", "8001/udp", "8002/udp"]
    assert image.config["author"] == "me"
    assert runtime["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 90_000_000_000, "Retries": 3}


def test_the_escape_directive_counts_in_words_too() -> None:
    text = "# escape=`\nARG ENV_IMAGE\nFROM ${ENV_IMAGE}\nENV P=C:\\x Q=`$P `\n  R=1\n"
    image = empty_image(oci_platform("linux-64"), "x")
    for step in plan_finish(parse(text, "D"), TREE, {}, {}).steps:
        assert not isinstance(step, CopyLayer)
        image = step(image)
    assert image.runtime["Env"] == ["P=C:\\x", "Q=$P", "R=1"]
    with pytest.raises(BuildError, match=r"D:1: escape=! is neither"):
        parse("# escape=!\nFROM x", "D")


def test_dockerignore_leaves_files_out() -> None:
    rules = "# no docs\n**/*.md\n!keep/README.md\n/build\n*/temp?\n"
    ignore = Ignore.parse(rules, ".dockerignore")
    out = ["a.md", "x/y/b.md", "build", "build/deep/file", "x/temp1", "x/temp1/below"]
    kept = ["keep/README.md", "x/build", "x/y/temp1", "temp1", "a.mdx"]
    assert [path for path in [*out, *kept] if ignore.excludes(path)] == out
    context = Tree({**TREE, ".dockerignore": File(b"dirs\n!dirs/bin/run\n")})
    (step,) = plan_finish(parse(f"{START}COPY . /all/", "D"), context, {}, {}).steps
    assert isinstance(step, CopyLayer)
    names = [entry.path.decode() for entry in step.entries if entry.kind == "file"]
    assert names == ["all/.dockerignore", "all/Dockerfile", "all/dirs/bin/run", "all/other.txt"]


def test_add_unpacks_an_archive_and_copies_what_is_none() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("d/x", tarfile.REGTYPE), ("etc", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.mode = kind, 5, 0o750
            archive.addfile(info)
    context = Tree({"a.tgz": File(out.getvalue()), "b.gz": File(gzip.compress(b"no tar"))})
    steps = plan_finish(
        parse(f"{START}ADD --chown=7 a.tgz /\nADD b.gz /new/", "D"), context, {}, {}, view=root, unpack=unpacked
    ).steps
    found = [[(e.path, e.kind, e.mode, e.uid) for e in step.entries] for step in steps if isinstance(step, CopyLayer)]
    assert found == [
        [(b"d", "directory", 0o750, 5), (b"d/x", "file", 0o750, 5)],
        [(b"new", "directory", 0o755, 0), (b"new/b.gz", "file", 0o644, 0)],
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("RUN apt-get update", "D:3: RUN needs a container"),
        ("FROM other", "D:3: a second FROM"),
        ("COPY --from=x a b", "D:3: COPY --from needs a container engine"),
        ("COPY nothing /x", "D:3: the release directory has no 'nothing'"),
        ("COPY ../x /x", "D:3: '../x' is outside"),
        ("COPY other.txt", "D:3: COPY wants"),
        ("COPY other.txt Dockerfile /x", "D:3: with several sources"),
        ("COPY --chown=nobody other.txt /x", "D:3: --chown nobody: 'nobody' is not in the image's /etc/passwd"),
        ("COPY --chmod=rwx other.txt /x", "D:3: --chmod=rwx"),
        ("COPY other.txt /.wh.x", "D:3: .wh.x: names that begin"),
        ("COPY <<EOF /x", "D:3: here-documents"),
        ("ADD https://example.com/x /x", "D:3: ADD of"),
        ("ADD https://example.com/x /x", "D:3: ADD of the address"),
        ("ONBUILD COPY . /", "D:3: ONBUILD has no place"),
        ("HEALTHCHECK --interval=x CMD true", "D:3: 'x' is not a duration"),
        ("ONBUILD RUN x", "D:3: ONBUILD"),
        ("NONSENSE x", "D:3: unknown instruction NONSENSE"),
        ("{", "D:3: '{' is no Dockerfile instruction"),
        ("ENV A", "D:3: ENV wants"),
        ("ENV A=1 B", "D:3: ENV 'B' is not NAME=VALUE"),
        ("ENV A='1", "D:3: ENV: a single quote is not closed"),
        ("ENV A=${X#y}", "D:3: ENV: ${X#y} is a form"),
        ("EXPOSE http", "D:3: 'http' is not a port"),
        ("SHELL bash", "D:3: SHELL wants a JSON list"),
        ("ARG 1x", "D:3: ARG '1x'"),
        ("USER", "D:3: USER wants a value"),
        ("ENV A=1\\\n\n  B='", "D:3: ENV: a single quote"),
    ],
)
def test_what_cannot_be_done_names_its_line(line: str, message: str) -> None:
    assert fails(line).message.startswith(message)


def test_run_tells_the_way_out() -> None:
    assert "COPY" in (fails("RUN x").hint or "")


def test_another_base_is_refused() -> None:
    with pytest.raises(BuildError, match="D:1: the native engine builds FROM"):
        plan_finish(parse("FROM ubuntu", "D"), TREE, {}, {})
    with pytest.raises(BuildError, match="D:1: ENV before FROM"):
        plan_finish(parse("ENV A=1", "D"), TREE, {}, {})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (START, "finish"),
        ("FROM $ENV_IMAGE", "finish"),
        ("ARG BASE\nFROM $BASE\nARG ENV_IN_FILENAME\nRUN x", "classic"),
        ("FROM other/image:1\nRUN x", "derived"),
        ("FROM $ENV_IMAGES", "derived"),
    ],
)
def test_kinds(text: str, kind: str) -> None:
    assert kind_of(parse(text, "D")) == kind


def test_the_escape_directive_counts() -> None:
    (instruction,) = parse("# escape=`\nENV A=1 `\n  B=2", "D")
    assert instruction.value.split() == ["A=1", "B=2"]


def test_continued_lines_are_joined_as_they_are() -> None:
    (instruction,) = parse("LABEL a=one\\\n# comment\n\n-two \\\n  b=3", "D")
    assert instruction.value.split() == ["a=one-two", "b=3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ('"a b"c \'d "e\'', ["a bc", 'd "e']),
        (r"\$A \"x\" a\ b", ["$A", '"x"', "a b"]),
        (r'"\$A \n \\ \""', [r'$A \n \ "']),
        ("$A$A ${A}b $", ["1 21 2", "1 2b", "$"]),
        ("'$A'", ["$A"]),
        ("${B:-${A}} ${B:-}x", ["1 2", "x"]),
        ('""', [""]),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert expand(text, {"A": "1 2"}) == words


@pytest.mark.parametrize("text", ["'a", '"a', "${A", "${A!}", "${}", "${A%x}"])
def test_open_words_are_refused(text: str) -> None:
    with pytest.raises(WordError):
        expand(text, {"A": "1"})
