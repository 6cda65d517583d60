"""A team's classic Dockerfile of a hundred lines (`team.Dockerfile`), and the base and files that it builds from offline."""

import contextlib
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from demochannel import tree
from demochannel.base import is_wanted, merged_path
from demochannel.debian import Apt, Deb, read_files
from lockyard.engines.daemon import DockerDaemon
from support.demo import demo_cache
from support.engine_site import BASE, Site

TEAM_BASE = f"{BASE}-team"
TOOLS = (
    "passwd", "dpkg", "libaudit1", "libcap-ng0", "libpam0g", "libsemanage2", "libsepol2", "libbz2-1.0", "libmd0", "libzstd1",
    "liblzma5", "zlib1g", "diffutils", "libdebconfclient0",
)  # fmt: skip
"""`useradd` and `dpkg`, with what they need beside the demo base."""
INSTALLED = ("netbase", "tini")
"""What the Dockerfile installs."""
TYPES = {"cpu": "", "gpu": "12.9"}


def _debs(names: tuple[str, ...]) -> Mapping[str, Deb]:
    return Apt(demo_cache() / "work", print).fetch(names)


@contextlib.contextmanager
def team_base(daemon: DockerDaemon) -> Iterator[None]:
    """Have the team's base in an engine that has `engine_base`."""
    nodes = {
        merged_path(path): node
        for deb in _debs(TOOLS).values()
        for path, node in read_files(deb).items()
        if is_wanted(merged_path(path)) and node.kind != "directory"
    }
    files = {
        "Dockerfile": f"FROM {BASE}:1\nADD tools.tar /\nRUN ldconfig\n".encode(),
        "tools.tar": tree.tar_bytes(nodes, mtime=0),
    }
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    context.seek(0)
    for message in daemon._api.build(fileobj=context, custom_context=True, tag=f"{TEAM_BASE}:1", decode=True, rm=True):
        assert "error" not in message, message
    yield
    daemon.remove_image(f"{TEAM_BASE}:1")


def write_team_release(site: Site) -> None:
    """Make the release of a site one of the team's: its Dockerfile, the Debian packages, the arguments of its types."""
    (site.release / "Dockerfile").write_bytes(Path(__file__).with_name("team.Dockerfile").read_bytes())
    (site.release / "debs").mkdir()
    for deb in _debs(INSTALLED).values():
        (site.release / "debs" / f"{deb.name}.deb").write_bytes(deb.path.read_bytes())
    for name in TYPES:
        (site.release / f"{name}.pinned_env.in").write_text("")
    types = "".join(
        f'[variants.{name}]\nbase = "rootfs:base.tar.zst"\n'
        f'args = {{ BASE_REPOSITORY = "{TEAM_BASE}", IMAGE_TYPE = "{name}", CUDA_MAJOR_MINOR_VERSION = "{cuda}" }}\n'
        for name, cuda in TYPES.items()
    )
    (site.root / "template/v1/variants.toml").write_text(
        f'schema = 1\nchannels = ["channel"]\ncompile-pyc = false\n{types}'
    )


def check_team_images(inside: Callable[..., str]) -> None:
    """Look at the built images; `inside` runs a command in the image of a type."""
    for name, cuda in TYPES.items():
        script = (
            "cat /etc/team-release; id -un 1000; stat -c %U /opt/conda/bin/tool; /opt/conda/bin/tool; tini --version; "
            "cat /opt/conda/etc/team/cuda-version 2>/dev/null; cut -f1 /var/lib/dpkg/installed.txt; ls /tmp"
        )
        lines = inside(name, "/bin/sh", "-c", script).splitlines()
        version = f"image 1.0.0 ({name})"
        assert lines[:4] == [version, "analyst", "analyst", "tool"], lines
        assert lines[5:] == [*([cuda] if cuda else []), "netbase", "tini"], lines
