"""A second Docker daemon with a modern BuildKit, and buildx: Debian's next suite, in a directory of its own.

Nothing of the machine changes: packages are downloaded with an apt state of our own (its source derived from the machine's),
unpacked beside, and kept between runs. The daemon has its own network namespace: without one it would take the bridge of the
first. runc comes from the machine, whose C library the next suite's does not suit.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.require import ROOT

SUITE = "trixie"
PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "containerd", "tini")
_MIRROR_RE = re.compile(r"(?m)^(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s+)?)(https?://\S*debian/?)(?:\s|$)")


@dataclass(frozen=True)
class Second:
    """The daemon: its socket, the environment in which `docker buildx` reaches it, and its builder's name there."""

    socket: Path
    environ: dict[str, str]
    builder: str


def _mirror() -> str:
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for path in places:
        found = _MIRROR_RE.search(path.read_text()) if path.is_file() else None
        if found:
            return found[1]
    raise RuntimeError("apt has no source of Debian")


@functools.cache
def install() -> Path:
    """Return the directory that the packages are unpacked in; they are fetched at first, verified by apt."""
    cache = Path(os.environ.get("LOCKYARD_TEST_CACHE") or ROOT / ".cache") / "buildkit"
    root = cache / f"root-{SUITE}"
    if root.is_dir():
        return root
    work = cache / f".work-{os.getpid()}"
    for name in ("state/lists/partial", "cache/archives/partial", "sources", "debs", "root"):
        (work / name).mkdir(parents=True)
    try:
        (work / "sources/next.sources").write_text(
            f"Types: deb\nURIs: {_mirror()}\nSuites: {SUITE}\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
        (work / "apt.conf").write_text(
            f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{work}/sources";\nDir::State "{work}/state";\n'
            f'Dir::State::status "/dev/null";\nDir::Cache "{work}/cache";\nAPT::Sandbox::User "root";\n'
        )
        env = {**os.environ, "APT_CONFIG": str(work / "apt.conf")}
        for argv in (["apt-get", "update", "-q"], ["apt-get", "download", "-q", *PACKAGES]):
            subprocess.run(argv, env=env, cwd=work / "debs", check=True, capture_output=True, timeout=300)
        for deb in sorted((work / "debs").glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(deb), str(work / "root")], check=True, timeout=300)
        with contextlib.suppress(FileExistsError, OSError):  # another process was faster
            (work / "root").rename(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return root


@contextlib.contextmanager
def second_daemon(place: Path) -> Iterator[Second]:
    """Run the daemon with everything it keeps below `place`."""
    root = install()
    path = f"{root}/usr/sbin:{root}/usr/bin:{os.environ['PATH']}"
    (place / "config/cli-plugins").mkdir(parents=True)
    (place / "config/cli-plugins/docker-buildx").symlink_to(root / "usr/libexec/docker/cli-plugins/docker-buildx")
    (place / "daemon.json").write_text(json.dumps({"features": {"containerd-snapshotter": True}}))
    socket = place / "docker.sock"
    environ = {"PATH": path, "HOME": str(place), "DOCKER_CONFIG": str(place / "config")}
    argv = [
        "unshare", "--net", "dockerd", "--config-file", str(place / "daemon.json"), "--host", f"unix://{socket}",
        "--data-root", str(place / "data"), "--exec-root", str(place / "exec"), "--pidfile", str(place / "pid"),
    ]  # fmt: skip
    with (place / "log").open("wb") as log:
        daemon = subprocess.Popen(
            argv, env={**os.environ, "PATH": path}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(300):
            if daemon.poll() is not None:
                break
            if (
                subprocess.run(
                    ["docker", "--host", f"unix://{socket}", "version"], env=environ, capture_output=True, check=False
                ).returncode
                == 0
            ):
                break
            time.sleep(0.1)
        else:
            daemon.poll()
        if daemon.poll() is not None:
            raise RuntimeError((place / "log").read_text()[-4000:])
        subprocess.run(
            ["docker", "context", "create", "second", "--docker", f"host=unix://{socket}"],
            env=environ, check=True, capture_output=True,
        )  # fmt: skip
        yield Second(socket, environ, "second")
    finally:
        daemon.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
        shutil.rmtree(place, ignore_errors=True)
