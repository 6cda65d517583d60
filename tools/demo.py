"""`make demo`: the whole main job on `examples/data-science`, with the commands a user types.

Everything is made below `.demo/` (another place with `--directory`): the demo channel and base (made once), the caches, and a
fresh copy of the example. No daemon, no cloud account, no public channel.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "data-science"
TYPES = ("cpu", "gpu")
REPOSITORIES = ("first", "second")


@dataclass
class Demo:
    """The state of one run."""

    directory: Path
    console: Console
    env: dict[str, str]
    times: list[tuple[str, float]] = field(default_factory=list)

    @property
    def work(self) -> Path:
        """The copy of the example that the commands run in."""
        return self.directory / "data-science"

    def title(self, text: str) -> None:
        """Print the heading of a part."""
        self.console.print()
        self.console.rule(f"[bold]{text}[/]", align="left")

    def run(self, *args: str, label: str = "") -> str:
        """Run a command as printed, in the distribution; return what it answers on stdout, which is shown too."""
        self.console.print(f"\n[bold green]$[/] {shlex.join(args)}", soft_wrap=True, highlight=False)
        start = time.monotonic()
        done = subprocess.run(args, cwd=self.work, env=self.env, stdout=subprocess.PIPE, text=True, check=False)
        if done.stdout:
            self.console.print(done.stdout.rstrip("\n"), soft_wrap=True, highlight=False, markup=False)
        if done.returncode:
            self.console.print(f"[bold red]the command ended with exit code {done.returncode}[/]")
            raise SystemExit(done.returncode)
        if label:
            self.times.append((label, time.monotonic() - start))
        return done.stdout

    def say(self, text: str) -> None:
        """Print one line as it is, never wrapped."""
        self.console.print(text, soft_wrap=True, highlight=False)

    def edition(self, name: str) -> None:
        """Let the channel be the edition of a month: what a public channel does by itself."""
        link = self.work / "channel"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("..", "channel", name))
        self.console.print(f"[dim](the channel now has what was there in {name})[/]")


def prepare(directory: Path, console: Console) -> Demo:
    """Make the channel and the base once, and a fresh copy of the example."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("LOCKYARD_")}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    env["LOCKYARD_CACHE_DIR"] = str(directory / "cache")
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT / "tools"), env.get("PYTHONPATH", ""))))
    demo = Demo(directory, console, env)
    demo.title("0. A channel of real packages and a base root file system (made once)")
    python, work = sys.executable, str(directory / "work")
    for argv in (
        [python, "-m", "demochannel", "channel", "--output", str(directory / "channel"), "--work", work],
        [python, "-m", "demochannel", "base", "--output", str(directory / "base" / "debian.tar.zst"), "--work", work],
    ):
        done = subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
    shutil.rmtree(demo.work, ignore_errors=True)
    shutil.copytree(
        EXAMPLE, demo.work, symlinks=True, ignore=shutil.ignore_patterns("channel", "base", "out", "registry")
    )
    (demo.work / "base").symlink_to(Path("..", "base"))
    console.print(f"the distribution: {os.path.relpath(demo.work)}", highlight=False)
    return demo


def release(demo: Demo, base: str, version: str, lock_options: Sequence[str], *, number: int, why: str) -> None:
    """Make one release from the last: create, lock, review, build and test, publish."""
    demo.title(f"{number}. Release {version}: {why}")
    demo.run("lockyard", "create-patch-version-artifacts", "--base-patch-version", base, label=f"create {version}")
    line = "build_artifacts/v0/v0.1"
    reviewed = f"git --no-pager diff --no-index {line}/v{base}/cpu.env.in {line}/v{version}/cpu.env.in"
    demo.say(f"\n[bold green]$[/] {reviewed}")
    subprocess.run(shlex.split(reviewed), cwd=demo.work, env=demo.env, check=False)
    demo.run("lockyard", "lock", version, *lock_options, label=f"lock {version}")
    demo.run("lockyard", "diff", base, version)
    demo.run("lockyard", "build", version, label=f"build and test {version}")
    targets = [part for name in REPOSITORIES for part in ("--target-ecr-repo", name)]
    demo.run("lockyard", "push", version, *targets, label=f"publish {version}")


def closing(demo: Demo, versions: Sequence[str], started: float) -> None:
    """Print versions, digests, sizes, bytes, times, the command that runs the image, and where to look next."""
    demo.title("What was made")
    images = Table("version", "type", "manifest digest", "size", "packages fetched", "layers made / all", "bytes made")
    pushes = Table("version", "repositories", "bytes sent", "bytes that were there", "tags of the cpu image")
    for version in versions:
        for image_type in TYPES:
            images.add_row(*image_cells(demo, version, image_type))
        pushes.add_row(*push_cells(demo, version))
    times = Table("step", "seconds")
    for label, seconds in demo.times:
        times.add_row(label, f"{seconds:.1f}")
    times.add_row("everything", f"{time.monotonic() - started:.1f}")
    for table in (images, pushes, times):
        demo.console.print(table)
    place, last = os.path.relpath(demo.work), versions[-1]
    cache = f"LOCKYARD_CACHE_DIR={shlex.quote(os.path.relpath(demo.directory / 'cache'))}"
    lockyard = os.path.relpath(Path(sys.executable).parent / "lockyard")
    demo.say("\n[bold]Run the image[/] (a sandbox, no daemon):")
    demo.say(
        f"  {cache} {lockyard} --root {place} run {last} --image-type cpu -- "
        "python -c 'import numpy, pandas, ssl; print(numpy.__version__)'"
    )
    demo.say("[bold]Where to look next:[/]")
    for path, what in (
        (f"build_artifacts/v0/v0.1/v{last}/", "what a reviewer sees: specs, locks, the layer plan, images.json"),
        (f"out/{last}/cpu/linux-64/", "the OCI layout, build.json and tests.json"),
        ("registry/first/", "a published repository; skopeo, podman and others read it as oci:DIR:TAG"),
    ):
        demo.say(f"  {place}/{path:<34} {what}")
    demo.say("  docs/tutorial/first-release.md: the next release, by hand")


def image_cells(demo: Demo, version: str, image_type: str) -> list[str]:
    """Return one image's line of the closing table, from the record of its build."""
    record = read_json(demo.work / "out" / version / image_type / "linux-64" / "build.json")
    made = [layer for layer in record["layers"] if layer["rebuilt"]]
    return [
        version,
        image_type,
        record["manifest_digest"].removeprefix("sha256:")[:16],
        megabytes(record["size"]),
        f"{len(record['fetched'])} / {record['lock']['packages']}",
        f"{len(made)} / {len(record['layers'])}",
        megabytes(sum(layer["size"] for layer in made)),
    ]


def push_cells(demo: Demo, version: str) -> list[str]:
    """Return one release's line of the publishing table, from the record of its push."""
    record = read_json(demo.work / "out" / version / "push.json")
    images = read_json(demo.work / "build_artifacts" / "v0" / "v0.1" / f"v{version}" / "images.json")
    repositories = images["images"]["cpu"]["repositories"]
    tags = next(iter(repositories.values()))["tags"]
    return [
        version, str(len(repositories)), megabytes(record["sent_bytes"]), megabytes(record["present_bytes"]), " ".join(tags),
    ]  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """Read a record."""
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def megabytes(size: int) -> str:
    """Return bytes for people."""
    return f"{size / 1e6:.1f} MB"


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=ROOT / ".demo", help="where everything is made")
    arguments = parser.parse_args()
    started = time.monotonic()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    demo = prepare(arguments.directory.absolute(), console)
    demo.title("1. The last release, 0.1.0, is locked")
    demo.edition("2026-01")
    demo.run("lockyard", "lock", "0.1.0", label="lock 0.1.0")
    demo.edition("2026-02")
    release(demo, "0.1.0", "0.1.1", ["--fresh"], number=2, why="take every update that the bounds allow")
    demo.edition("2026-03")
    release(demo, "0.1.1", "0.1.2", ["--update", "jinja2"], number=3, why="one package moves, the rest is re-used")
    closing(demo, ["0.1.1", "0.1.2"], started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
