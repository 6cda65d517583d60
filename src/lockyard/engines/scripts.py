"""What packages run when they are installed and activated, effects: post-link scripts and activation, in the sandbox.

Source: conda's own behaviour, as the (draft) CEP "Management and structure of conda environments" writes it down: all files
first, then post-link scripts in install order with PREFIX, PKG_NAME, PKG_VERSION and PKG_BUILDNUM; activation sets the
variables of `etc/conda/env_vars.d/*.json`, then runs `etc/conda/activate.d/*.sh`, both in alphabetical order.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from lockyard.conda.lock import LockedPackage
from lockyard.engines.changes import Changes, apply_changes, read_changes
from lockyard.errors import BuildError
from lockyard.extracted import DirectoryReader
from lockyard.oci.tar import EPOCH
from lockyard.ports import Log
from lockyard.ports.containers import Overlay, Runner, RunRequest

SCRIPTS_VERSION = 1
"""Goes into cache keys: raise it when the same scripts would give other files or variables."""
MESSAGES = ".messages.txt"
TIMEOUT = 600.0
"""Seconds for one script."""
_WORK = "/.lockyard"
_SHOWN = 12
_SHELL_RAN = 'if command -v bash >/dev/null 2>&1; then exec bash "$@"; else exec sh "$@"; fi'
_ACTIVATE = """\
for script in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do
  if [ -e "$script" ]; then . "$script" >&2; fi
done
env -0 > "$1"
"""
_OWN_TO_SHELLS = {"_", "PWD", "OLDPWD", "SHLVL", "BASH_EXECUTION_STRING", "HOME"}


def script_path(package: str) -> str:
    """Return where a package has its post-link script."""
    return f"bin/.{package}-post-link.sh"


def post_link(runner: Runner, package: LockedPackage, *, tree: Path, prefix: str, work: Path, log: Log) -> Changes:
    """Run the script of one package, twice, over the prefix at `tree`; apply and return what it changes.

    Raises:
        BuildError: it fails, or the two runs differ.

    """
    found = []
    for number in (1, 2):
        tar = work / f"{package.name}-{number}.tar"
        _run_script(runner, package, prefix, Overlay(tree, prefix, tar))
        found.append(read_changes(tar, tree))
    first, second = found
    if first.paths != second.paths:
        raise _not_repeating(package, first, second)
    if MESSAGES in first.data:
        text = b"".join(first.data[MESSAGES].chunks()).decode(errors="replace")
        log.info(f"{package.name} says: {text.strip()}")
    first = first.without(MESSAGES)
    apply_changes(first, tree)
    return first


def _run_script(runner: Runner, package: LockedPackage, prefix: str, overlay: Overlay) -> None:
    env = {
        "PREFIX": prefix,
        "ROOT_PREFIX": prefix,
        "CONDA_PREFIX": prefix,
        "PKG_NAME": package.name,
        "PKG_VERSION": package.version,
        "PKG_BUILDNUM": str(package.build_number),
        "HOME": "/tmp",  # noqa: S108 - of the sandbox: what is written there is no part of the image
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }
    script = f"{prefix}/{script_path(package.name)}"
    # As conda does, the interpreter is given the script, whatever its first line and mode are.
    done = runner.run(
        RunRequest(
            argv=("/bin/sh", "-c", f'PATH="$PREFIX/bin:$PATH"; export PATH; {_SHELL_RAN}', "sh", script),
            env=env, workdir=prefix, overlay=overlay, timeout=TIMEOUT,
        )
    )  # fmt: skip
    if done.exit_code != 0:
        raise BuildError(
            f"the post-link script of {package.dist} failed with exit code {done.exit_code}",
            hint=f'build without it: post-link = {{ "{package.name}" = "skip" }} in variants.toml',
            details=done.output.strip().splitlines()[-_SHOWN:],
        )


def _not_repeating(package: LockedPackage, first: Changes, second: Changes) -> BuildError:
    paths = sorted(path for path in {*first.paths, *second.paths} if first.paths.get(path) != second.paths.get(path))
    return BuildError(
        f"the post-link script of {package.dist} does not repeat: two runs gave other files",
        hint=f'build without it: post-link = {{ "{package.name}" = "skip" }} in variants.toml, and make them in the Dockerfile',
        details=[f"{path} differs" for path in paths[:_SHOWN]],
    )


def activation(runner: Runner, *, tree: Path, prefix: str, path: str, work: Path) -> dict[str, str]:
    """Return the variables that activation sets or changes; `path` is the PATH that the image has anyway.

    Raises:
        BuildError: a script fails, two runs differ, or a file of variables is malformed.

    """
    declared = _declared(tree, prefix)
    if not _has(tree, "etc/conda/activate.d", ".sh"):
        return declared
    given = {"PATH": path, "CONDA_PREFIX": prefix, "CONDA_DEFAULT_ENV": prefix, "CONDA_SHLVL": "1", **declared}
    runs = []
    for number in (1, 2):
        place = work / f"activation-{number}"
        place.mkdir()
        runs.append(_activated(runner, given, tree, prefix, place))
    first, second = runs
    odd = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    if odd:
        raise BuildError(
            f"activation does not repeat: two runs gave {odd[0]} other values",
            hint='leave it out of the image: activation = "none" in variants.toml',
            details=[f"{odd[0]} = {run.get(odd[0])!r}" for run in runs],
        )
    changed = {name: value for name, value in first.items() if given.get(name) != value}
    return dict(sorted((declared | changed).items()))


def _activated(runner: Runner, given: Mapping[str, str], tree: Path, prefix: str, place: Path) -> dict[str, str]:
    """Return the variables after the scripts, less those that shells and the base have."""
    base = _environment(runner, given, tree, prefix, place / "before", "")
    after = _environment(runner, given, tree, prefix, place / "after", _ACTIVATE)
    return {
        name: value
        for name, value in after.items()
        if name not in _OWN_TO_SHELLS and (base.get(name) != value or name in given)
    }


def _environment(
    runner: Runner, given: Mapping[str, str], tree: Path, prefix: str, out: Path, script: str
) -> dict[str, str]:
    out.mkdir()
    done = runner.run(
        RunRequest(
            argv=("/bin/sh", "-c", _SHELL_RAN, "sh", "-c", script or 'env -0 > "$1"', "sh", f"{_WORK}/out/env"),
            env=given, workdir="/", timeout=TIMEOUT, binds=((tree, prefix, False), (out, f"{_WORK}/out", True)),
        )
    )  # fmt: skip
    try:
        data = (out / "env").read_bytes() if done.exit_code == 0 else b""
    except FileNotFoundError:
        data = b""
    if not data:
        raise BuildError(
            f"the activation scripts in etc/conda/activate.d failed with exit code {done.exit_code}",
            hint='leave activation out of the image: activation = "none" in variants.toml',
            details=done.output.strip().splitlines()[-_SHOWN:],
        )
    lines = data.decode(errors="replace").split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _declared(tree: Path, prefix: str) -> dict[str, str]:
    """Return the variables of `env_vars.d`."""
    reader = DirectoryReader(tree)
    found: dict[str, str] = {}
    for name in _listed(tree, "etc/conda/env_vars.d", ".json"):
        try:
            values = json.loads(reader.read(f"etc/conda/env_vars.d/{name}") or b"")
        except ValueError as error:
            raise BuildError(f"{prefix}/etc/conda/env_vars.d/{name} is not JSON: {error}") from error
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise BuildError(f"{prefix}/etc/conda/env_vars.d/{name} does not map names to texts")
        found |= values
    return found


def _has(tree: Path, directory: str, end: str) -> bool:
    return bool(_listed(tree, directory, end))


def _listed(tree: Path, directory: str, end: str) -> list[str]:
    place = tree / directory
    if not place.is_dir():
        return []
    return sorted(path.name for path in place.iterdir() if path.name.endswith(end))
