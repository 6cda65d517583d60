"""Files, effects: atomic writes, directory swaps, locks, temporary places. Every EDGE module may import this.

A directory is swapped by two renames (old aside as `.NAME.old`, new in), so a kill between them leaves `.NAME.old`;
`restore_leftovers` puts it back. A stage that was never swapped in is `.NAME.new-XXXX`, and is removed.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from lockyard.errors import ConfigError, LockyardError
from lockyard.tree import SYMLINK, File, Tree, check_relative

_STAGE = ".new-"
_ASIDE = ".old"
_LOOK_AGAIN = 0.02  # seconds


def atomic_write(path: Path, data: bytes, mode: int = 0o644, *, durable: bool = True) -> None:
    """Write `data` to `path` so that a reader sees the old or the new bytes, whatever is killed when.

    Without `durable` a crash of the machine may leave a file that is cut short: for what is checked when it is read, and can be
    made again. Waiting for the disk costs more than the write. Parents are made. Raises `OSError` as the system gives it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{_STAGE}")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if durable:
                os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_file(path: Path) -> bytes | None:
    """Return the bytes of `path`, `None` when it is not there."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def chunks(path: Path, size: int) -> Iterator[bytes]:
    """Give the bytes of a file in pieces of at most `size` bytes."""
    with path.open("rb") as stream:
        while data := stream.read(size):
            yield data


def read_tree(directory: Path, *, skip: Callable[[str], bool] | None = None) -> Tree:
    """Return the files below `directory`; `skip` is asked for each relative path, directories too.

    Leftovers of interrupted writes are passed over. A missing directory is an empty tree.
    """
    files: dict[str, File] = {}
    for relative, entry in _walk(directory, ""):
        if _is_leftover(entry.name) or (skip is not None and skip(relative)):
            continue
        files.update(_read_entry(relative, entry, skip))
    return Tree(files)


def names(directory: Path) -> tuple[str, ...]:
    """Return the names in a directory, sorted; none when it is not there."""
    return tuple(name for name, _ in _walk(directory, ""))


def subdirectories(directory: Path) -> tuple[Path, ...]:
    """Return the directories in a directory, sorted by name; none when it is not there."""
    return tuple(directory / name for name, entry in _walk(directory, "") if entry.is_dir())


def write_tree(tree: Tree, target: Path, *, keep: Collection[str] = ()) -> None:
    """Replace the directory `target` by `tree` as one step.

    `keep` names files and directories of the old `target` that live on, hard-linked into the stage; a path that the
    tree holds too is the tree's. Directories are 0755. Raises `OSError`; then the old state stands.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}{_STAGE}"))
    try:
        stage.chmod(0o755)
        for relative, file in tree.items():
            _write_file(stage / relative, file)
        for relative in sorted(keep):
            _link_over(target / check_relative(relative), stage / relative)
        _swap(stage, target)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def leftovers(root: Path, places: Iterable[str] = ("build_artifacts", "template")) -> tuple[Path, ...]:
    """Return what interrupted writes left below the `places` of `root`, down to the depth of release directories."""
    found: list[Path] = []
    for place in places:
        todo = [(os.path.join(root, place), 0)]  # noqa: PTH118 - every command looks: plain text is five times faster
        while todo:
            directory, depth = todo.pop()
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
                for entry in entries:
                    if _is_leftover(entry.name):
                        found.append(Path(entry.path))
                    elif depth < 4 and entry.is_dir(follow_symlinks=False):
                        todo.append((entry.path, depth + 1))
    return tuple(sorted(found))


def restore_leftovers(root: Path) -> tuple[str, ...]:
    """Bring back what an interrupted write left: an old directory with no new one is restored, the rest removed.

    Returns one line for each thing done. Call it with the distribution's lock held.
    """
    lines = []
    for path in leftovers(root):
        if path.name.endswith(_ASIDE):
            target = path.with_name(path.name[1 : -len(_ASIDE)])
            if not os.path.lexists(target):
                path.rename(target)
                lines.append(f"restored {target.relative_to(root)}: an earlier command was interrupted")
                continue
        remove(path)
        lines.append(f"removed {path.relative_to(root)}: an earlier command was interrupted")
    return tuple(lines)


def sweep(directory: Path) -> None:
    """Remove what interrupted writes left directly in `directory`. Call it where nobody else writes there."""
    for name, entry in tuple(_walk(directory, "")):
        if _is_leftover(entry.name):
            remove(directory / name)


@contextlib.contextmanager
def lock(
    path: Path,
    *,
    patience: float = 0.0,
    tell: Callable[[str], object] | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[None]:
    """Hold the exclusive lock file `path`; it ends with the process, however that ends.

    While another process holds it, wait up to `patience` seconds, and `tell` that once. The kernel's own waiting has no
    end, and a signal for one would be this process's: so it is asked again and again, with `wait` in between.

    Raises:
        LockyardError: another process still holds it.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    left = patience
    try:
        while not _try_lock(handle):
            owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
            what = f"another lockyard command is writing here (process {owner})"
            if left <= 0:
                raise LockyardError(what, hint="wait for it to end, then try again")
            if tell is not None:
                tell(f"{what}: waiting up to {patience:.0f} s")
                tell = None
            wait(_LOOK_AGAIN)
            left -= _LOOK_AGAIN
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            raise
        return False
    return True


@contextlib.contextmanager
def temporary_directory(parent: Path, prefix: str = "tmp") -> Iterator[Path]:
    """Give a private directory below `parent` and remove it at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=parent, prefix=f".{prefix}{_STAGE}"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep_old(directory: Path, *, age: float = 86400.0) -> None:
    """Remove what killed processes left half-written in a cache directory, once it is `age` seconds old."""
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if _is_leftover(entry.name) and entry.stat(follow_symlinks=False).st_mtime < time.time() - age:
                remove(Path(entry.path))


def is_full(error: BaseException) -> bool:
    """Tell whether a failure says that a disk, or what one may use of it, is full."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def free_bytes(path: Path) -> int:
    """Return how many bytes can still be written below a path, there or not."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def unfinished(directory: Path) -> tuple[Path, ...]:
    """Return what is half-written directly in `directory`, by a process that is at work or was killed."""
    return tuple(directory / name for name, entry in _walk(directory, "") if _is_leftover(entry.name))


def inside(root: Path, relative: str, *, source: str) -> Path:
    """Return `root / relative` for a path of the configuration that must stay below `root`.

    Raises:
        ConfigError: it does not; the message begins with `source`.

    """
    try:
        return root / check_relative(relative)
    except ConfigError as error:
        raise ConfigError(
            f"{source}: {error.message}", hint="paths are relative to the root and stay below it"
        ) from error


def _is_leftover(name: str) -> bool:
    return name.startswith(".") and (_STAGE in name or name.endswith(_ASIDE))


def _walk(directory: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    try:
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda item: item.name):
                yield f"{prefix}{entry.name}", entry
    except (FileNotFoundError, NotADirectoryError):
        return


def _read_entry(relative: str, entry: os.DirEntry[str], skip: Callable[[str], bool] | None) -> dict[str, File]:
    if entry.is_symlink():
        return {relative: File(os.fsencode(Path(entry.path).readlink()), SYMLINK)}
    if entry.is_dir():
        files: dict[str, File] = {}
        for child, item in _walk(Path(entry.path), f"{relative}/"):
            if not _is_leftover(item.name) and not (skip is not None and skip(child)):
                files.update(_read_entry(child, item, skip))
        return files
    if not entry.is_file():
        raise ConfigError(f"{entry.path} is neither a file, a directory nor a link")
    return {relative: File(Path(entry.path).read_bytes(), stat.S_IMODE(entry.stat().st_mode))}


def _write_file(path: Path, file: File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.is_link:
        path.symlink_to(os.fsdecode(file.data))
        return
    path.write_bytes(file.data)
    path.chmod(file.mode)


def _link_over(source: Path, target: Path) -> None:
    if source.is_symlink():
        if not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.readlink())
    elif source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for child in sorted(source.iterdir()):
            _link_over(child, target / child.name)
    elif source.exists() and not os.path.lexists(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)


def _swap(stage: Path, target: Path) -> None:
    if not os.path.lexists(target):
        stage.rename(target)
        return
    aside = target.with_name(f".{target.name}{_ASIDE}")
    if os.path.lexists(aside):
        remove(aside)
    target.rename(aside)
    try:
        stage.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Remove a file, a link or a directory with all that is below it. Raises `OSError`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
