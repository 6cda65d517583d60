"""Make the reference distribution's releases again, with the commands a user types: `python tools/reference.py --index DIR`.

`DIR` is a channel's index of conda-forge: `SUBDIR/repodata.json` or `repodata.json.zst` for linux-64, linux-aarch64 and
noarch. Nothing else is read from outside and no network is asked: the index goes into a cache of this run, and every
`lock` is `--offline --exclude-newer DATE`. What people wrote stays (the first release's specs, `template/`,
`*.additional_packages_env.in`), all else below `build_artifacts/` is made anew in a copy and then replaced as one step.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lockyard import fs
from lockyard.cli.root import run
from lockyard.tree import Tree, diff

ROOT = Path(__file__).resolve().parents[1]
ARTIFACTS = "build_artifacts"
CHANNEL = "conda-forge"
DRIFT = 8
"""Exit code of `--check` when the committed files are not what the commands make."""


@dataclass(frozen=True, slots=True)
class Release:
    """One release: how it is made, from what, and the day whose channel it sees."""

    version: str
    cutoff: str
    part: str = ""
    base: str = ""
    identifier: str = ""

    @property
    def create(self) -> list[str]:
        """The command that makes its directory; the first release has none."""
        if not self.base:
            return []
        extra = [f"--pre-release-identifier={self.identifier}"] if self.identifier else []
        return [f"create-{self.part}-version-artifacts", f"--base-patch-version={self.base}", *extra]


RELEASES = (
    Release("0.0.0", "2025-03-15"),
    Release("0.1.0", "2025-06-15", "minor", "0.0.0"),
    Release("0.1.1", "2025-09-15", "patch", "0.1.0"),
    Release("0.1.2", "2025-11-15", "patch", "0.1.1"),
    Release("0.2.0", "2026-06-20", "minor", "0.1.2"),
    Release("0.2.1-beta.1", "2026-07-20", "patch", "0.2.0", "beta.1"),
)
FIRST = "build_artifacts/v0/v0.0/v0.0.0"
FIRST_TEMPLATE = "template/v0/v0.0"
MADE_TEMPLATES = ("template/v0/v0.1", "template/v0/v0.2")


def is_written(path: str) -> bool:
    """Tell whether a file below the root is one that people write."""
    name = path.rpartition("/")[2]
    if name.endswith("additional_packages_env.in") or name.startswith("patch_"):
        return True
    return path.startswith(f"{FIRST}/") and name.endswith("env.in")


def copy_written(root: Path, work: Path) -> None:
    """Copy what people write into `work`: configuration, templates, the inputs of the releases."""
    shutil.copy2(root / "pyproject.toml", work / "pyproject.toml")
    shutil.copytree(root / "template", work / "template", symlinks=True)
    for made in MADE_TEMPLATES:
        shutil.rmtree(work / made, ignore_errors=True)
    files = fs.read_tree(root / ARTIFACTS)
    written = {path: file for path, file in files.items() if is_written(f"{ARTIFACTS}/{path}")}
    fs.write_tree(Tree(written), work / ARTIFACTS)
    shutil.copytree(work / FIRST_TEMPLATE, work / FIRST, symlinks=True, dirs_exist_ok=True)


def commands(index: Path) -> Iterator[list[str]]:
    """Yield the commands in their order."""
    yield ["cache", "add-index", CHANNEL, str(index)]
    for release in RELEASES:
        if release.create:
            yield release.create
        yield ["lock", release.version, "--fresh", f"--exclude-newer={release.cutoff}", "--offline"]
        for text in ("changelog", "release-notes", "version-release-note"):
            yield [f"generate-{text}", release.version]


def make(root: Path, index: Path, work: Path) -> None:
    """Make all releases in `work`."""
    copy_written(root, work)
    environ = {"LOCKYARD_CACHE_DIR": str(work / "cache")}
    for command in commands(index):
        print(f"$ lockyard {' '.join(command)}", flush=True)
        code = run(["--root", str(work), *command], environ=environ)
        if code:
            raise SystemExit(code)


def main() -> int:
    """Make the releases and write them, or compare them with what is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--index", type=Path, required=True, help="an index of conda-forge: SUBDIR/repodata.json[.zst]")
    parser.add_argument("--root", type=Path, default=ROOT, help="the distribution (default: this checkout)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 8 when something would change")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        make(options.root, options.index.resolve(), work)
        changes = 0
        for name in (*MADE_TEMPLATES, ARTIFACTS):
            old, new = fs.read_tree(options.root / name), fs.read_tree(work / name)
            for change in diff(old, new):
                changes += 1
                print(f"{change.kind} {name}/{change.path}")
            if old != new and not options.check:
                fs.write_tree(new, options.root / name)
    print(f"{changes} files changed" if changes else "nothing changed")
    return DRIFT if options.check and changes else 0


if __name__ == "__main__":
    sys.exit(main())
