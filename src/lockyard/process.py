"""Other programs, effects: the one place that starts processes. Argument lists only, a stated environment, a time limit."""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lockyard import fs
from lockyard.errors import BuildError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where system programs are looked for, whatever the caller's environment says."""
_KEPT = 8 << 20  # bytes of output that are kept, from the end
_GRACE = 10.0  # seconds for a program to end by itself
_TEMPORARY_RE = re.compile(r"tmp-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}$")


@dataclass(frozen=True, slots=True)
class Completed:
    """How a process ended (128 + N for signal N); `output` is stdout and stderr together, at most its last 8 MiB."""

    exit_code: int
    output: str
    timed_out: bool = False
    found: bool = False
    """Whether the line that was waited for came."""


def temporary_name() -> str:
    """Return a new name for what must not outlive this process, such as an image in a daemon: it says whose it is."""
    return f"tmp-{_host()}-{os.getpid()}-{_started(os.getpid())}-{uuid.uuid4().hex[:8]}"


def is_left_over(name: str) -> bool:
    """Tell whether `name` ends with a temporary name of a process of this machine that is gone.

    What belongs to another machine, or to another container of this one, is never left over.
    """
    match = _TEMPORARY_RE.search(name)
    return match is not None and match[1] == _host() and _started(int(match[2])) != match[3]


@contextlib.contextmanager
def own_directory(parent: Path) -> Iterator[Path]:
    """Give a private directory below `parent` and remove it at the end; what killed processes left there goes first."""
    for path in fs.unfinished(parent):
        if is_left_over(path.name.partition(".new-")[0]):
            with contextlib.suppress(OSError):  # another process tidies, too
                fs.remove(path)
    with fs.temporary_directory(parent, temporary_name()) as place:
        yield place


@functools.cache
def _host() -> str:
    """Return what tells this machine, and where process numbers are private this container, from others."""
    space = Path("/proc/self/ns/pid")
    text = f"{socket.gethostname()} {space.readlink() if space.is_symlink() else ''}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _started(pid: int) -> str | None:
    """Return when a process began, in ticks since the machine did; `None` when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def find(name: str) -> str | None:
    """Return the path of a system program, `None` when it is not installed."""
    return shutil.which(name, path=PATH)


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout: float | None = None,
    interactive: bool = False,
    tidies: bool = False,
) -> Completed:
    """Run a program to its end; it and all that it started in its session are killed when time (seconds) is over.

    `interactive` leaves it standard input and outputs of the caller. One that `tidies` is interrupted first and has ten
    seconds to remove what it made elsewhere; also when the caller is interrupted.

    Raises:
        BuildError: it cannot be started.

    """
    pipe = None if interactive else subprocess.PIPE
    try:
        process = subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=pipe,
            stderr=None if interactive else subprocess.STDOUT,
            start_new_session=not interactive,
        )
    except OSError as error:
        raise BuildError(f"{argv[0]} cannot be started: {error.strerror}") from error
    with process:
        try:
            out, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            if tidies:
                _interrupt(process)
            _kill(process, group=not interactive)
            out, _ = process.communicate()
            return Completed(128 + signal.SIGKILL, _text(out), timed_out=True)
        except BaseException:  # Ctrl-C above all: nothing goes on alone
            if tidies:
                _interrupt(process)
            _kill(process, group=not interactive)
            raise
    code = process.returncode
    return Completed(code if code >= 0 else 128 - code, _text(out))


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    """Do to a program and what it started as Ctrl-C does, and wait a while."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_GRACE)


def run_until(argv: Sequence[str], pattern: str, *, env: Mapping[str, str], timeout: float | None = None) -> Completed:
    """Run a program until a line of its output holds the regular expression `pattern`, then end it and all it started.

    It is over as well when the program ends by itself, or after `timeout` seconds.

    Raises:
        BuildError: it cannot be started.

    """
    wanted = re.compile(pattern)
    try:
        process = subprocess.Popen(
            list(argv), env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"{argv[0]} cannot be started: {error.strerror}") from error
    kept = bytearray()
    late = threading.Event()

    def end() -> None:
        late.set()
        _kill(process, group=True)

    timer = threading.Timer(timeout, end) if timeout is not None else None
    with process:
        if timer is not None:
            timer.start()
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            for line in process.stdout:
                kept += line
                del kept[:-_KEPT]
                if wanted.search(line.decode(errors="replace").rstrip("\n")):
                    return Completed(0, _text(bytes(kept)), found=True)
        finally:
            if timer is not None:
                timer.cancel()
            _kill(process, group=True)
    code = process.returncode
    return Completed(code if code >= 0 else 128 - code, _text(bytes(kept)), timed_out=late.is_set())


def follow(
    argv: Sequence[str],
    say: Callable[[str], None],
    *,
    env: Mapping[str, str],
    feed: Iterable[bytes] = (),
    started: Callable[[Callable[[], None]], None] = lambda _: None,
    cwd: Path | None = None,
) -> int:
    """Run a program in `cwd` to its end: `feed` goes to its standard input, `say` gets each line of its output as it comes.

    `started` gets a function that ends it, from any thread: it is asked to end, and killed with all it started after ten
    seconds. The same happens when the caller is interrupted. Returns the exit code, 128 + N for signal N.

    Raises:
        BuildError: it cannot be started.

    """
    try:
        process = subprocess.Popen(
            list(argv), env=dict(env), cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"{argv[0]} cannot be started: {error.strerror}") from error
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    feeder = threading.Thread(target=_feed, args=(process.stdin, feed), daemon=True)
    feeder.start()
    try:
        started(lambda: _ask_to_end(process))
        for line in process.stdout:
            say(line.decode(errors="replace").rstrip("\r\n"))
        code = process.wait()
    except BaseException:  # Ctrl-C above all: nothing goes on alone
        _ask_to_end(process)
        raise
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        _kill(process, group=True)
        process.wait()
        feeder.join()
        process.stdout.close()
    return code if code >= 0 else 128 - code


def _feed(stream: IO[bytes], chunks: Iterable[bytes]) -> None:
    """Write all of it; a program that reads no more will say itself why."""
    with contextlib.suppress(OSError, ValueError), stream:
        for chunk in chunks:
            stream.write(chunk)


def _ask_to_end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a program and what it started to end; after a while there is no choice."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)

    def insist() -> None:
        if process.poll() is None:
            _kill(process, group=True)

    timer = threading.Timer(_GRACE, insist)
    timer.daemon = True
    timer.start()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program answered on stdout; what it says on stderr goes to the caller's."""

    exit_code: int
    stdout: bytes


def ask(argv: Sequence[str], question: bytes, *, env: Mapping[str, str], timeout: float = 60.0) -> Answer:
    """Run a program that reads `question` from stdin and answers on stdout, within `timeout` seconds.

    Raises:
        BuildError: it cannot be started or takes longer.

    """
    try:
        done = subprocess.run(
            list(argv), input=question, stdout=subprocess.PIPE, env=dict(env), timeout=timeout, check=False
        )
    except OSError as error:
        raise BuildError(f"{argv[0]} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{argv[0]} gave no answer within {timeout:.0f} s") from error
    return Answer(done.returncode, done.stdout)


@dataclass(frozen=True, slots=True)
class Captured:
    """How a process ended (128 + N for signal N), with its two outputs apart."""

    exit_code: int
    stdout: bytes
    stderr: str


def capture(argv: Sequence[str], *, env: Mapping[str, str], timeout: float, cwd: Path | None = None) -> Captured:
    """Run a program that reads nothing, within `timeout` seconds; it is killed then, with all that it started.

    Raises:
        BuildError: it cannot be started or takes longer.

    """
    try:
        process = subprocess.Popen(
            list(argv), env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"{argv[0]} cannot be started: {error.strerror}") from error
    with process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            _kill(process, group=True)
            raise BuildError(f"{argv[0]} did not end within {timeout:.0f} s") from error
        except BaseException:  # Ctrl-C above all: nothing goes on alone
            _kill(process, group=True)
            raise
    code = process.returncode
    return Captured(code if code >= 0 else 128 - code, out, _text(err))


def _text(data: bytes | None) -> str:
    return (data or b"")[-_KEPT:].decode(errors="replace")


def _kill(process: "subprocess.Popen[bytes]", *, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
