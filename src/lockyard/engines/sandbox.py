"""Runs commands inside a built image with no daemon, effects: namespaces by util-linux `unshare`, as root or as a user.

The image is unpacked once into `CACHE/rootfs/v1/HEX/` (by manifest digest; `HEX.user` for an ordinary user, who cannot
keep owners). Each command gets that root read-only with a writable layer in memory over it, so that nothing a command does
reaches the cache or the next command. There is no network but a loopback, no variable of the caller's environment, and no
mount outside of the namespaces, which end with the command even when it is killed.
"""

import contextlib
import fcntl
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lockyard import cachedir, fs, process
from lockyard.engines import inside
from lockyard.errors import BuildError
from lockyard.oci.image import Image, load_image, verified
from lockyard.oci.values import Descriptor, Digest
from lockyard.ports import Log
from lockyard.ports.containers import Runner, RunRequest, RunResult
from lockyard.unpack import unpack_layers

KEPT_ROOTS = 6
"""Unpacked images that stay in the cache; older ones that nobody uses go."""
_HELPER = Path(inside.__file__)


@contextlib.contextmanager
def open_sandbox(layout: Path, *, cache_dir: Path, log: Log, writable: bool = True) -> Iterator[Runner]:
    """Give a runner inside the only image of an OCI layout.

    Without `writable`, and where the kernel has no overlay for the caller, only /tmp and /run can be written to.

    Raises:
        BuildError: the machine cannot do it (one line, with what to install or allow), or the layout is malformed.

    """
    image = _load(layout)
    blobs = {layer.descriptor.digest: _blob(layout, layer.descriptor) for layer in image.layers}
    with open_image(image, blobs, cache_dir=cache_dir, log=log, writable=writable) as runner:
        yield runner


@contextlib.contextmanager
def open_image(
    image: Image, blobs: Mapping[Digest, Path], *, cache_dir: Path, log: Log, writable: bool = True
) -> Iterator[Runner]:
    """Give a runner inside an image whose layers are at `blobs`, as `open_sandbox` does.

    Raises:
        BuildError: the machine cannot do it, or a layer is missing.

    """
    argv = _namespaces()
    _probe(argv)
    place = cache_dir.absolute() / "rootfs" / "v1"
    name = image.digest.hex if os.geteuid() == 0 else f"{image.digest.hex}.user"
    with _in_use(place, name), fs.temporary_directory(place, "run") as scratch:
        if not (place / name).is_dir():
            log.info(f"unpacking the image once for the sandbox: {len(image.layers)} layers")
            _unpack(image, blobs, place, name)
        cachedir.use(place, [place / name])
        _prune(place)
        yield Sandbox(image, place / name, scratch, argv, writable=writable)


class Sandbox:
    """The `Runner` port: commands inside one unpacked image."""

    def __init__(self, image: Image, rootfs: Path, scratch: Path, argv: tuple[str, ...], *, writable: bool) -> None:
        self._writable = writable
        self._runtime = image.runtime
        self._rootfs = rootfs
        self._scratch = scratch
        self._argv = argv

    def run(self, request: RunRequest) -> RunResult:
        """Run one command to its end; one that takes too long is killed and ends with 137.

        Raises:
            BuildError: it could not be started.

        """
        uid, gid, home = self._user()
        image_env = dict(item.split("=", 1) for item in self._runtime.get("Env") or ())
        with fs.temporary_directory(self._scratch, "command") as place:
            (place / "mount").mkdir()
            spec: dict[str, Any] = {
                "rootfs": str(self._rootfs),
                "scratch": str(place / "mount"),
                "binds": [
                    [str(source.absolute()), target, writable]
                    for source, target, writable in (*request.binds, *self._names(request))
                ],
                "overlay": _overlay(request),
                "argv": list(request.argv),
                "env": {"PATH": process.PATH, "HOME": home, **image_env, **request.env},
                "workdir": request.workdir or self._runtime.get("WorkingDir") or "/",
                "uid": uid,
                "gid": gid,
                "writable": self._writable,
                "user_namespace": os.geteuid() != 0,
            }
            (place / "spec.json").write_text(json.dumps(spec))
            spaces = tuple(item for item in self._argv if item != "--net" or not request.network)
            argv = (*spaces, sys.executable, "-I", "-S", str(_HELPER), str(place / "spec.json"))
            env = {"PATH": process.PATH}
            if request.until is not None:
                done = process.run_until(argv, request.until, env=env, timeout=request.timeout)
            else:
                done = process.run(argv, env=env, timeout=request.timeout, interactive=request.interactive)
        if done.exit_code == inside.FAILED and inside.MARK in done.output:
            raise BuildError(f"the sandbox could not start the command: {done.output.strip()[-500:]}")
        output = f"{done.output}\nkilled after {request.timeout:g} s\n" if done.timed_out else done.output
        return RunResult(done.exit_code, output, done.found)

    def _names(self, request: RunRequest) -> tuple[tuple[Path, str, bool], ...]:
        """Return what lets a command with a network look up names: the machine's own configuration."""
        names = Path("/etc/resolv.conf")
        place = self._rootfs / "etc" / "resolv.conf"
        return (
            ((names, "etc/resolv.conf", False),)
            if request.network and names.is_file() and not place.is_symlink()
            else ()
        )

    def _user(self) -> tuple[int, int, str]:
        """Return uid, gid and home of the image's user; names are looked up in its own `/etc/passwd`."""
        user, _, group = str(self._runtime.get("User") or "0").partition(":")
        accounts = _table(self._rootfs, "etc/passwd")
        entry = next((item for item in accounts if len(item) > 5 and user in {item[0], item[2]}), None)
        if entry is None and not user.isdigit():
            raise BuildError(f"the image's user {user!r} is not in its /etc/passwd", hint="write USER as a number")
        uid, gid, home = (int(entry[2]), int(entry[3]), entry[5]) if entry else (int(user), 0, "/")
        if group:
            found = next((item for item in _table(self._rootfs, "etc/group") if group == item[0]), None)
            if found is None and not group.isdigit():
                raise BuildError(f"the image's group {group!r} is not in its /etc/group", hint="write USER as numbers")
            gid = int(found[2]) if found else int(group)
        return uid, gid, home or ("/root" if uid == 0 else "/")


def _overlay(request: RunRequest) -> list[str] | None:
    if request.overlay is None:
        return None
    return [str(request.overlay.source.absolute()), request.overlay.target, str(request.overlay.changes.absolute())]


def _namespaces() -> tuple[str, ...]:
    """Return the command that starts another one in new namespaces and ends it when this process ends."""
    unshare = process.find("unshare")
    if unshare is None:
        raise BuildError("running a command in an image needs unshare", hint="apt-get install util-linux")
    setpriv = process.find("setpriv")
    guard = (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    return (*guard, unshare, *user, "--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child", "--")


def _probe(argv: tuple[str, ...]) -> None:
    done = process.run((*argv, "true"), env={"PATH": process.PATH}, timeout=30)
    if done.exit_code != 0:
        raise BuildError(
            f"this machine does not allow the sandbox: {done.output.strip()[-300:] or f'exit code {done.exit_code}'}",
            hint="run as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 (Debian), "
            "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)",
        )


def _load(layout: Path) -> Image:
    def read(descriptor: Descriptor) -> bytes:
        path = _blob(layout, descriptor)
        return verified(fs.read_file(path), descriptor, str(path))

    index = fs.read_file(layout / "index.json")
    if index is None:
        raise BuildError(f"{layout} holds no image", hint="build it first: lockyard build")
    return load_image(index, read)


def _blob(layout: Path, descriptor: Descriptor) -> Path:
    return layout / "blobs" / "sha256" / descriptor.digest.hex


def _unpack(image: Image, blobs: Mapping[Digest, Path], place: Path, name: str) -> None:
    layers = [(layer, blobs[layer.descriptor.digest]) for layer in image.layers]
    missing = [str(path) for _, path in layers if not path.is_file()]
    if missing:
        raise BuildError(f"{missing[0]} is missing", hint="build the image again")
    with fs.temporary_directory(place, "unpack") as stage:
        root = stage / "root"
        root.mkdir(mode=0o755)
        root.chmod(0o755)
        try:
            unpack_layers(layers, root, owners=os.geteuid() == 0)
            # Another process may have been faster: its root is as good.
            with contextlib.suppress(FileExistsError, OSError):
                root.rename(place / name)
        finally:
            _make_removable(root)


@contextlib.contextmanager
def _in_use(place: Path, name: str) -> Iterator[None]:
    """Hold the shared lock that keeps an unpacked image from being pruned."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / f"{name}.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        yield


def _prune(place: Path) -> None:
    """Remove the oldest unpacked images that nobody uses."""
    fs.sweep_old(place)
    for path in sorted(_roots(place), key=lambda item: item.stat().st_mtime, reverse=True)[KEPT_ROOTS:]:
        _take_out(place, path)


def _roots(place: Path) -> list[Path]:
    return [path for path in sorted(place.glob("[0-9a-f]*")) if re.fullmatch(r"[0-9a-f]{64}(\.user)?", path.name)]


def _take_out(place: Path, path: Path) -> bool:
    """Remove an unpacked image unless somebody uses it; tell whether it is gone."""
    lock = place / f"{path.name}.lock"
    with lock.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        with fs.temporary_directory(place, "prune") as stage:
            path.rename(stage / "root")
            _make_removable(stage / "root")
        lock.unlink(missing_ok=True)
    return True


def cache_kind(cache_dir: Path) -> cachedir.CacheKind:
    """Return how the unpacked images in the cache are listed."""
    place = cache_dir / "rootfs" / "v1"

    def entries() -> Iterator[cachedir.CacheEntry]:
        for path in _roots(place):
            used = cachedir.last_used([path])
            size = cachedir.size_of(path)
            yield cachedir.CacheEntry(name=path.name, size=size, used=used, markers=(path,), paths=(path,))

    def remove(entry: cachedir.CacheEntry) -> bool:
        return _take_out(place, entry.paths[0])

    return cachedir.CacheKind("rootfs", "images unpacked for the sandbox", place, entries, remove)


def _make_removable(root: Path) -> None:
    """Let the owner write to all directories: an image may have read-only ones."""
    if os.geteuid() == 0:
        return
    for directory, names, _ in os.walk(root):
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink() and not path.stat().st_mode & stat.S_IWUSR:
                path.chmod(0o700)


def _table(rootfs: Path, path: str) -> list[list[str]]:
    """Read a colon-separated table of the image, when it is a regular file of it."""
    place = rootfs
    for part in path.split("/"):
        place /= part
        if place.is_symlink():
            return []
    data = fs.read_file(place)
    return [line.split(":") for line in (data or b"").decode(errors="replace").splitlines()]
