"""The first process of a sandbox: makes the root, then runs the command. Run as a script, in new namespaces, by `sandbox`.

It needs nothing but the standard library and takes one argument, the path of a JSON file:
`rootfs`, `scratch` (an empty directory), `binds` (`[source, target, writable]`), `overlay` (`[source, target, tar]` or null),
`writable`, `argv`, `env`, `workdir`, `uid`, `gid`, `user_namespace` (whether it is root only in its own user namespace). Mounts
live in its own mount namespace and end with it. A failure before the command is one line on stderr that begins with `lockyard-sandbox:`, exit code 125.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import struct
import sys
import tarfile
from pathlib import Path
from typing import Any

FAILED = 125
MARK = "lockyard-sandbox:"

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_BIND, _MS_MOVE, _MS_REC, _MS_PRIVATE = 4096, 8192, 16384, 1 << 18
_KEPT_FLAGS = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
_CLONE_NEWUSER = 0x10000000
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
# chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, setfcap: what programs in a
# container expect of root; nothing that reaches the machine around it.
_KEPT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 31}
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}

_libc = ctypes.CDLL(None, use_errno=True)


def main(path: str) -> int:
    """Make the root, run the command, return its exit code."""
    spec = json.loads(Path(path).read_text())
    try:
        changes = _make_root(spec)
    except OSError as error:
        sys.stderr.write(f"{MARK} {error.filename or 'the root'}: {error.strerror}\n")
        return FAILED
    child = os.fork()
    if child == 0:
        _execute(spec)
    # This is process 1 of its namespace: it waits for orphans too, and passes a request to end on.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pid, status = os.wait()
        if pid == child:
            if changes is not None:
                _export(*changes)
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _make_root(spec: dict[str, Any]) -> tuple[int, int] | None:
    """Mount everything; return the opened directory of the overlay's changes and the file that they go to."""
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    scratch = spec["scratch"]
    _mount("tmpfs", scratch, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    root = f"{scratch}/root"
    for name in ("root", "lower", "upper", "work"):
        Path(scratch, name).mkdir()
    _mount(spec["rootfs"], f"{scratch}/lower", None, _MS_BIND)
    os.chdir(scratch)  # overlay options cannot hold every path; these are relative
    if not (spec["writable"] and _overlay(root)):
        _read_only(f"{scratch}/lower", root)
    _system(root)
    for source, target, writable in spec["binds"]:
        _bind(source, root, target, writable=writable)
    changes = _laid_over(root, *spec["overlay"]) if spec["overlay"] else None
    with contextlib.suppress(OSError):
        socket.sethostname("lockyard")
    _loopback()
    # Move the root over the old one, so that nothing outside of it has a path any more.
    os.chdir(root)
    _mount(".", "/", None, _MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    return changes


def _laid_over(root: str, source: str, target: str, tar: str) -> tuple[int, int]:
    """Show `source` at `target` with a writable layer over it; the working directory is the scratch one."""
    for name in ("tree", "tree-upper", "tree-work"):
        Path(name).mkdir()
    _mount(source, "tree", None, _MS_BIND)
    place = _place(root, target, directory=True)
    if not _overlay(place, "tree"):
        raise OSError(0, "this kernel has no overlay file system for this user", target)
    handle = os.open(tar, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    return os.open("tree-upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), handle


def _export(upper: int, handle: int) -> None:
    """Write the changes as a tar with the whiteouts of the OCI Image Specification, `layer.md`."""
    with (
        os.fdopen(handle, "wb") as out,
        tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        for directory, names, files, here in os.fwalk(".", dir_fd=upper):
            place = "" if directory == "." else directory.removeprefix("./") + "/"
            if any(_is_opaque(here, name) for name in ("trusted.overlay.opaque", "user.overlay.opaque")):
                archive.addfile(tarfile.TarInfo(f"{place}.wh..wh..opq"))
            for name in (*names, *files):
                _export_one(archive, here, place, name)


def _is_opaque(directory: int, attribute: str) -> bool:
    try:
        return os.getxattr(directory, attribute) == b"y"
    except OSError:
        return False


def _export_one(archive: tarfile.TarFile, directory: int, place: str, name: str) -> None:
    found = os.lstat(name, dir_fd=directory)
    member = tarfile.TarInfo(place + name)
    member.mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISREG(found.st_mode):
        member.size = found.st_size
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory), "rb") as data:
            archive.addfile(member, data)
        return
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
        member = tarfile.TarInfo(f"{place}.wh.{name}")
    elif stat.S_ISLNK(found.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=directory)
    else:
        member.type = tarfile.DIRTYPE if stat.S_ISDIR(found.st_mode) else tarfile.FIFOTYPE
    archive.addfile(member)


def _overlay(root: str, lower: str = "") -> bool:
    """Lay a writable layer, in memory, over a read-only directory; `False` where the kernel does not allow that."""
    upper, work = (f"{lower}-{name}" if lower else name for name in ("upper", "work"))
    for more in ("", ",userxattr"):
        try:
            options = f"lowerdir={lower or 'lower'},upperdir={upper},workdir={work}{more}"
            _mount("overlay", root, "overlay", 0, options)
        except OSError:
            continue
        return True
    return False


def _read_only(lower: str, root: str) -> None:
    """Make a root in memory whose directories are those of the image, read-only, except the temporary ones."""
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    with os.scandir(lower) as entries:
        for entry in entries:
            target = f"{root}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), target)  # noqa: PTH115, PTH211 - the text itself, not a Path
            elif entry.name in {"dev", "proc", "tmp", "run"}:
                Path(target).mkdir()
            else:
                _bind(entry.path, root, entry.name, writable=False)
    Path(root, "tmp").mkdir(exist_ok=True)
    Path(root, "tmp").chmod(0o1777)


def _system(root: str) -> None:
    """Give the root what every program expects: /proc, a small /dev, a /tmp."""
    for name, mode in (("proc", 0o555), ("dev", 0o755), ("tmp", 0o1777)):
        place = _place(root, name, directory=True)
        if name != "tmp":
            continue
        Path(place).chmod(mode)
    try:
        _mount("proc", f"{root}/proc", "proc", _KEPT_FLAGS)
    except OSError:
        _mount("/proc", f"{root}/proc", None, _MS_BIND | _MS_REC)
    _mount("tmpfs", f"{root}/dev", "tmpfs", _MS_NOSUID, "mode=0755")
    for name in _DEVICES:
        if Path(f"/dev/{name}").exists():
            _bind(f"/dev/{name}", root, f"dev/{name}", writable=True)
    for name, target in _DEVICE_LINKS.items():
        Path(root, "dev", name).symlink_to(target)
    for name, kind, options in (
        ("shm", "tmpfs", "mode=1777"),
        ("pts", "devpts", "newinstance,ptmxmode=0666,mode=0620"),
    ):
        Path(root, "dev", name).mkdir()
        with contextlib.suppress(OSError):  # a terminal is a comfort
            _mount(kind, f"{root}/dev/{name}", kind, _MS_NOSUID | _MS_NOEXEC, options)


def _place(root: str, path: str, *, directory: bool) -> str:
    """Make a mount point below the root, refusing links: one could lead out of it."""
    place = root
    parts = [part for part in path.split("/") if part]
    for number, part in enumerate(parts):
        place = f"{place}/{part}"
        last = number == len(parts) - 1
        try:
            mode = os.lstat(place).st_mode
        except FileNotFoundError:
            if last and not directory:
                Path(place).touch()
            else:
                Path(place).mkdir()
            continue
        if stat.S_ISLNK(mode) or ".." in parts:
            raise OSError(0, "is a link and cannot be a mount point", place.removeprefix(root))
    return place


def _bind(source: str, root: str, target: str, *, writable: bool) -> None:
    place = _place(root, target, directory=Path(source).is_dir())
    _mount(source, place, None, _MS_BIND)
    if not writable:
        kept = os.statvfs(place).f_flag & _KEPT_FLAGS  # a user namespace cannot take these away
        _mount(None, place, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)


def _loopback() -> None:
    """Bring up `lo`, the only network that there is."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        up_and_running = 0x41
        fcntl.ioctl(connection, 0x8914, struct.pack("16sh", b"lo", up_and_running))


def _execute(spec: dict[str, Any]) -> None:
    """Become the command; never returns."""
    code = FAILED
    try:
        _enter(spec["workdir"])  # made by root when it is not there, as container engines do
        _become(spec)
        os.umask(0o022)
        os.closerange(3, 1024)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        env = spec["env"]
        program = shutil.which(spec["argv"][0], path=env.get("PATH", "/usr/bin:/bin"))
        if program is None:
            code = 127
            sys.stderr.write(f"{spec['argv'][0]}: not found in the image\n")
        else:
            os.execve(program, spec["argv"], env)  # noqa: S606 - that is what a sandbox does
    except OSError as error:
        sys.stderr.write(f"{MARK} {error.filename or spec['argv'][0]}: {error.strerror}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _enter(workdir: str) -> None:
    try:
        os.chdir(workdir)
    except FileNotFoundError:
        try:
            Path(workdir).mkdir(parents=True)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            workdir = "/tmp"  # noqa: S108 - of the sandbox; where nothing can be made, it is the place to work
        os.chdir(workdir)


def _become(spec: dict[str, Any]) -> None:
    """Give up what the command must not have, and become its user."""
    uid, gid = spec["uid"], spec["gid"]
    for number in range(64):
        if number not in _KEPT_CAPABILITIES:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if spec["user_namespace"]:
        if (uid, gid) != (0, 0):
            # Only one id is mapped, and it is root: a further namespace gives it the wanted number.
            _check(_libc.unshare(_CLONE_NEWUSER), "user namespace")
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} 0 1")
            Path("/proc/self/gid_map").write_text(f"{gid} 0 1")
        return
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind)]
    result = _libc.mount(*texts, ctypes.c_ulong(flags), options.encode() if options else None)
    _check(result, target)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
