"""Commands inside an image with no daemon: what they see, what they cannot reach, how they end."""

import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockyard.engines import sandbox
from lockyard.engines.sandbox import open_sandbox
from lockyard.errors import BuildError
from lockyard.oci.layout import write_layout
from lockyard.ports.containers import Overlay, Runner, RunRequest, RunResult
from support.bases import open_base
from support.demo import demo_base
from support.effects import RecordingLog
from support.require import ROOT, need
from support.user import run_as_user

pytestmark = pytest.mark.integration


def write_image(place: Path, **config: object) -> Path:
    """A layout of the demo base with a configuration."""
    base = open_base(place, f"rootfs:{demo_base().absolute()}")
    write_layout(place / "layout", base.image.with_config(**config), base.blobs)
    return place / "layout"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("sandbox", "debian")
    place = tmp_path_factory.mktemp("sandbox")
    write_image(place, Env=["PATH=/usr/bin:/bin", "MINE=image value"], WorkingDir="/srv/work")
    return place


@pytest.fixture(params=[True, False], ids=["overlay", "read-only"])
def runner(place: Path, request: pytest.FixtureRequest) -> Iterator[Runner]:
    with open_sandbox(
        place / "layout", cache_dir=place / "cache", log=RecordingLog(), writable=request.param
    ) as opened:
        yield opened


def sh(runner: Runner, script: str, **fields: object) -> RunResult:
    return runner.run(RunRequest(argv=("sh", "-c", script), **fields))  # type: ignore[arg-type]  # fields of the request


def test_the_command_sees_the_image_and_its_environment_only(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKED", "host")
    result = sh(
        runner,
        "env | sort; pwd; cat /etc/debian_version; id -u; hostname",
        env={"ADDED": "by the request"},
        workdir="/tmp",
    )
    lines = [line for line in result.output.splitlines() if not line.startswith(("PWD", "SHLVL", "_=", "OLDPWD"))]
    assert lines[:4] == ["ADDED=by the request", "HOME=/root", "MINE=image value", "PATH=/usr/bin:/bin"]
    assert lines[4] == "/tmp"
    assert lines[6:] == ["0", "lockyard"]


def test_exit_codes_and_output_come_back(runner: Runner) -> None:
    assert sh(runner, "echo out; echo err >&2; exit 7") == RunResult(7, "out\nerr\n")
    assert sh(runner, "kill -9 $$").exit_code == 137
    assert runner.run(RunRequest(argv=("no-such-program",))).exit_code == 127


def test_only_its_own_processes_and_devices_are_there(runner: Runner) -> None:
    pids = [int(name) for name in sh(runner, "ls /proc").output.split() if name.isdigit()]
    assert max(pids) < 20
    assert sh(runner, "ls /dev").output.split() == [
        "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero",
    ]  # fmt: skip
    assert sh(runner, "echo x > /dev/null && head -c 3 /dev/zero | wc -c").output == "3\n"


def test_there_is_a_loopback_and_no_other_network(runner: Runner) -> None:
    devices = sh(runner, "cat /proc/net/dev").output.splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]


def test_mounts_of_the_machine_are_out_of_reach(runner: Runner) -> None:
    mounts = sh(runner, "cat /proc/self/mountinfo").output
    assert str(ROOT) not in mounts
    for process in ("1", "self"):
        found = sh(runner, f"ls -d /proc/{process}/root{ROOT} /proc/{process}/cwd/../../../..{ROOT}")
        assert found.exit_code != 0
        assert str(ROOT) + "\n" not in found.output


def test_capabilities_are_few(runner: Runner) -> None:
    found = sh(runner, "grep CapBnd /proc/self/status").output.split()[1]
    assert int(found, 16) & (1 << 21 | 1 << 16 | 1 << 12 | 1 << 18 | 1 << 27) == 0  # admin, module, net, chroot, mknod


def test_what_a_command_writes_is_gone(runner: Runner, place: Path) -> None:
    assert sh(runner, "echo x > /tmp/new && cat /tmp/new").output == "x\n"
    assert sh(runner, "ls /tmp").output == ""
    changed = sh(runner, "echo changed > /etc/issue; rm -f /etc/hosts").output
    assert changed == "" or "Read-only" in changed
    (root,) = (path for path in (place / "cache" / "rootfs" / "v1").iterdir() if len(path.name) == 64)
    assert (root / "etc" / "hosts").is_file()
    assert (root / "etc" / "issue").read_text() != "changed\n"


def test_binds_are_read_only_unless_asked(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "file").write_text("given\n")
    binds = ((tmp_path / "in", "/in", False), (tmp_path / "out", "/results/out", True))
    result = sh(runner, "cat /in/file; echo no > /in/file; echo yes > /results/out/file", binds=binds)
    assert result.output.startswith("given\n")
    assert "Read-only file system" in result.output
    assert (tmp_path / "in" / "file").read_text() == "given\n"
    assert (tmp_path / "out" / "file").read_text() == "yes\n"


CHANGES = """
umask 022
cd /opt/tree
echo new > new; mkdir made; echo x > made/file; ln -s ../new made/link
rm gone; rm -r old-directory
rm -r replaced; mkdir replaced; echo y > replaced/other
echo more >> kept; chmod 700 mode; touch same
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for path in ("kept", "gone", "mode", "same", "old-directory/a", "old-directory/b/c", "replaced/x", "untouched/y"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(f"{path}\n")
    return tree


def test_changes_of_an_overlay_come_back_as_a_layer_does(place: Path, tree: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    with open_sandbox(place / "layout", cache_dir=place / "cache", log=RecordingLog()) as runner:
        overlay = Overlay(tree, "/opt/tree", tmp_path / "changes.tar")
        assert sh(runner, CHANGES, overlay=overlay) == RunResult(0, "")
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before
    with tarfile.open(tmp_path / "changes.tar") as archive:
        found = {member.name: member for member in archive}
        texts = {name: archive.extractfile(member) for name, member in found.items() if member.isfile()}
        data = {name: stream.read().decode() for name, stream in texts.items() if stream is not None}
    assert sorted(set(found) - {"same"}) == [
        ".wh.gone", ".wh.old-directory", "kept", "made", "made/file", "made/link", "mode", "new", "replaced",
        "replaced/.wh..wh..opq", "replaced/other",
    ]  # fmt: skip
    assert (data["kept"], data["new"], data["replaced/other"]) == ("kept\nmore\n", "new\n", "y\n")
    assert (found["made/link"].linkname, found["mode"].mode) == ("../new", 0o700)


def test_a_bind_is_not_put_through_a_link(runner: Runner, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="/bin.*is a link"):
        sh(runner, "true", binds=((tmp_path, "/bin/x", False),))


def test_a_command_that_takes_too_long_is_killed_with_its_children(runner: Runner, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    # Whoever holds the writing end keeps the reader waiting: the end of file says that all of them are gone.
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        result = sh(
            runner, "exec 3> /pipes/pipe; echo started >&3; sleep 1000 & sleep 1000", timeout=1.5,
            binds=((tmp_path, "/pipes", True),),
        )  # fmt: skip
        os.set_blocking(reader, True)
        assert os.read(reader, 100) == b"started\n"
        assert os.read(reader, 100) == b""
    finally:
        os.close(reader)
    assert result.exit_code == 137
    assert "killed after 1.5 s" in result.output


KILLED = """
import signal, sys
from pathlib import Path
from support.effects import RecordingLog
from lockyard.engines.sandbox import open_sandbox
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
from lockyard.ports.containers import RunRequest
layout, cache, pipes = map(Path, sys.argv[1:])
with open_sandbox(layout, cache_dir=cache, log=RecordingLog()) as runner:
    runner.run(RunRequest(argv=("sh", "-c", "exec 3> /pipes/pipe; echo started >&3; sleep 1000"), binds=((pipes, "/pipes", True),)))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "interrupt"])
def test_nothing_outlives_a_killed_lockyard(number: signal.Signals, place: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("src", "test", "tools"))}
    argv = [sys.executable, "-c", KILLED, str(place / "layout"), str(place / "cache"), str(tmp_path)]
    with subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL) as process:
        reader = os.open(tmp_path / "pipe", os.O_RDONLY)
        try:
            assert os.read(reader, 100) == b"started\n"
            process.send_signal(number)
            assert os.read(reader, 100) == b""
        finally:
            os.close(reader)
            process.kill()
    assert [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(place) in line] == []


def test_the_user_of_the_image_is_honoured(tmp_path: Path) -> None:
    need("sandbox", "debian")
    for user, expected in (("1000:50", "1000 50 /"), ("games", "5 60 /usr/games"), ("33", "33 33 /var/www")):
        layout = write_image(tmp_path, User=user)
        with open_sandbox(layout, cache_dir=tmp_path / "cache", log=RecordingLog()) as runner:
            assert sh(runner, "echo $(id -u) $(id -g) $HOME; ! touch /etc/x 2>/dev/null").output == f"{expected}\n"
    layout = write_image(tmp_path, User="nobody-such")
    with (
        open_sandbox(layout, cache_dir=tmp_path / "cache", log=RecordingLog()) as runner,
        pytest.raises(BuildError, match="'nobody-such' is not in its /etc/passwd"),
    ):
        sh(runner, "true")


def test_old_roots_are_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("sandbox", "debian")
    monkeypatch.setattr(sandbox, "KEPT_ROOTS", 1)
    for name in ("a", "b", "c"):
        with open_sandbox(
            write_image(tmp_path, Env=[f"A={name}"]), cache_dir=tmp_path / "cache", log=RecordingLog()
        ) as runner:
            assert sh(runner, "echo $A").output == f"{name}\n"
            roots = [path for path in (tmp_path / "cache" / "rootfs" / "v1").iterdir() if len(path.name) == 64]
            assert len(roots) == 1


def test_a_damaged_layer_is_not_run(tmp_path: Path) -> None:
    need("sandbox", "debian")
    layout = write_image(tmp_path)
    blob = max((layout / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.unlink()
    blob.write_bytes(data)
    with pytest.raises(BuildError), open_sandbox(layout, cache_dir=tmp_path / "cache", log=RecordingLog()):
        pass
    assert not [path for path in (tmp_path / "cache" / "rootfs" / "v1").iterdir() if path.is_dir()]


AS_USER = """
import sys
from pathlib import Path
from lockyard.engines.sandbox import open_sandbox
from lockyard.ports.containers import RunRequest

class Quiet:
    def info(self, message): pass

with open_sandbox(Path(sys.argv[1]), cache_dir=Path(sys.argv[2]), log=Quiet()) as runner:
    print(runner.run(RunRequest(argv=("sh", "-c", "id -u; cat /etc/debian_version; ls -nd /etc; touch /etc/x && echo ok"))).output)
"""


def test_an_ordinary_user_runs_the_same_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    need("sandbox", "debian")
    place = tmp_path_factory.mktemp("ordinary")
    layout = write_image(place)
    for path in (place, *place.parents):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
    home = place / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    done = run_as_user(AS_USER, str(layout), str(home / "cache"), home=home)
    assert done.returncode == 0, done.stderr
    uid, version, listed, *rest = done.stdout.splitlines()
    assert (uid, listed.split()[2:4]) == ("0", ["0", "0"])
    assert version
    assert rest[0] == "ok"
