"""A team's repository, small enough that a release takes seconds: two image types, a base with a shell, native builds, tests."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import zstandard

from demochannel.packages import Package
from lockyard.cli.root import run
from support.channel import package, write_channel

FIRST = (package("tool", "1.0.0"), package("extra", "1.0.0"))
SPECS = {"cpu": ["tool"], "gpu": ["tool", "extra"]}
RELEASE = "build_artifacts/v0/v0.1/v0.1.0"
TEST = """\
# An extra 1.0.2 is one that does not work.
set -e
test -x "$PREFIX/bin/tool"
case "$(cat "$PREFIX"/share/*/data.txt)" in *"extra 1.0.2"*) echo "extra 1.0.2 does not work"; exit 1;; esac
"""


def write_base(path: Path) -> None:
    """Write a root file system with a shell and what it needs, of this machine."""
    programs = [shutil.which(name) for name in ("sh", "cat", "test")]
    files = {Path(name).resolve(): name for name in programs if name}
    links = {name: str(Path(name).resolve()) for name in programs if name and Path(name).is_symlink()}
    for program in list(files):
        listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout.split()
        files |= {Path(word): word for word in listed if word.startswith("/")}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for source in sorted(files):
            _add(archive, str(source).removeprefix("/usr"), source.read_bytes())
        for name, target in links.items():
            link = tarfile.TarInfo(f"bin/{Path(name).name}")
            link.type, link.linkname = tarfile.SYMTYPE, Path(target).name
            if Path(name).name != Path(target).name:
                archive.addfile(link)
        _add(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        for name in ("tmp", "proc", "dev", "root"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.compress(stream.getvalue()))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name.removeprefix("/"))
    member.size, member.mode = len(data), 0o755
    archive.addfile(member, io.BytesIO(data))


def write_team(root: Path, cache: Path, *, stage: str, production: Iterable[str]) -> Path:
    """Write the repository: release 0.1.0 locked, workflows generated, 0.1.0 scheduled."""
    release = root / RELEASE
    release.mkdir(parents=True)
    (root / "template" / "v0").mkdir(parents=True)
    (root / "test" / "image").mkdir(parents=True)
    places = "".join(f'production{number} = "{uri}"\n' for number, uri in enumerate(production, start=1))
    (root / "lockyard.toml").write_text(
        f'name = "small"\n[repositories]\nstage = {{ uri = "{stage}", stage = true }}\n{places}[ci]\nsign = true\n'
    )
    variants = "".join(
        f'[variants.{name}]\nbase = "rootfs:base/base.tar.zst"\n'
        f'virtual-packages = {{ __glibc = "2.36", __linux = "5.10" }}\n{flags}'
        for name, flags in (("cpu", ""), ("gpu", 'pytest-flags = ["--use-gpu"]\n'))
    )
    (root / "template" / "v0" / "variants.toml").write_text(
        f'schema = 1\nchannels = ["file:channel"]\ncompile-pyc = false\n{variants}'
    )
    (root / "test" / "image" / "tool.test.sh").write_text(TEST)
    (root / ".gitignore").write_text(".lockyard/\nout/\n")
    write_base(root / "base" / "base.tar.zst")
    for name, lines in SPECS.items():
        text = "".join(f"{line}\n" for line in ("# This file is auto-generated.", *lines))
        (release / f"{name}.env.in").write_text(text)
    publish(root, *FIRST)
    for words in (("lock", "0.1.0"), ("schedule", "add", "0.1.0"), ("ci", "generate", "github", "codebuild")):
        code = run(
            ["-q", "--root", str(root), *words], environ={"LOCKYARD_CACHE_DIR": str(cache), "PATH": "/usr/bin:/bin"}
        )
        assert code == 0, words
    return root


def publish(root: Path, *packages: Package) -> None:
    """Make the channel have these packages."""
    write_channel(root / "channel", packages)
