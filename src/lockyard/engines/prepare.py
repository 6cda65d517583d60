"""What an image needs beyond its packages' files, effects: post-link scripts, activation, compiled Python modules.

All of it is made in the sandbox, over the base and a private copy of the environment, and kept in the cache by what went in:
`environments/v1/HEX/` holds `record.json` and `changes.tar`, `pyc/v1/HEX` the compiled modules of one package.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lockyard import cachedir, fs
from lockyard.conda.lock import LockedPackage
from lockyard.distribution import EnvironmentSettings
from lockyard.engines import bytecode, scripts
from lockyard.engines.changes import Changes, entries, joined, read_changes
from lockyard.engines.materialise import PlacedPackage, materialise, placed
from lockyard.engines.request import BuildRequest, ScriptedChanges
from lockyard.errors import BuildError
from lockyard.extracted import DirectoryReader
from lockyard.oci.contents import Python, read_manifest
from lockyard.oci.image import Image, canonical_json
from lockyard.oci.linking import LINKING_VERSION, Linker
from lockyard.oci.tar import write_tar
from lockyard.oci.values import Digest
from lockyard.ports import Log
from lockyard.ports.containers import BaseSandbox, Runner

SCHEMA = 1
_LEAVE_OUT = "or leave it out in variants.toml: {}"
_SCRIPTS_OFF = 'post-link = "skip", activation = "none"'
_MODULES_OFF = "compile-pyc = false"


class Preparer:
    """Completes build requests; `host` is the conda subdir whose programs run on this machine."""

    def __init__(self, cache_dir: Path, log: Log, sandbox: BaseSandbox, *, host: str) -> None:
        self._environments = cache_dir / "environments" / "v1"
        self._compiled = cache_dir / "pyc" / "v1"
        self._log = log
        self._sandbox = sandbox
        self._host = host

    def prepare(self, request: BuildRequest, settings: EnvironmentSettings) -> BuildRequest:
        """Return the request with what the settings ask for.

        Raises:
            BuildError: a script is refused, fails or does not repeat, or nothing can be run on this machine.

        """
        request = self._scripts(request, settings)
        return self._modules(request) if settings.compile_pyc else request

    def _scripts(self, request: BuildRequest, settings: EnvironmentSettings) -> BuildRequest:
        running = self._running(request, settings)
        active = settings.activation == "env" and any(
            (item.directory / "etc/conda" / name).is_dir()
            for item in request.fetched.values()
            for name in ("activate.d", "env_vars.d")
        )
        if not running and not active:
            return request
        place = self._environments / self._key(request, running, settings).hex
        cachedir.use(self._environments, [place])
        found = _read(place)
        if found is None:
            self._make(request, running, settings, place, active=active)
            found = _read(place)
        if found is None:
            raise BuildError(f"{place} was changed by somebody else", hint="build again")
        record, changes = found
        scripted = ScriptedChanges(
            record["changes"],
            tuple(f"{package.name} {package.version}" for package in running),
            tuple(entries(changes, request.prefix, request.owner)),
        )
        return dataclasses.replace(request, activation=record["activation"], scripted=scripted)

    def _running(self, request: BuildRequest, settings: EnvironmentSettings) -> tuple[LockedPackage, ...]:
        """Return the packages whose post-link scripts run, in install order."""
        running = []
        for package in request.packages:
            reader = DirectoryReader(request.fetched[package.dist].directory)
            if reader.stat(f"bin/.{package.name}-pre-link.sh") is not None:
                self._log.warning(f"{package.dist}: its pre-link script is not run; no installer runs them any more")
            if reader.stat(scripts.script_path(package.name)) is None:
                continue
            answer = settings.post_link_of(package.name)
            if answer == "refuse":
                raise BuildError(
                    f"{package.dist} has a post-link script, and variants.toml refuses it",
                    hint=f'allow it: post-link = {{ "{package.name}" = "run" }}',
                )
            if answer == "skip":
                self._log.info(f"{package.dist}: its post-link script is skipped")
            else:
                running.append(package)
        return tuple(running)

    def _key(self, request: BuildRequest, running: Sequence[LockedPackage], settings: EnvironmentSettings) -> Digest:
        """Return what the outcome depends on: every file of the environment and of the base."""
        value = {
            "schema": SCHEMA,
            "versions": [LINKING_VERSION, scripts.SCRIPTS_VERSION],
            "packages": [dataclasses.asdict(package) for package in request.packages],
            "base": [str(layer.diff_id) for layer in request.base.image.layers],
            "env": list(request.base.image.runtime.get("Env") or ()),
            "prefix": request.prefix,
            "activation": settings.activation,
            "scripts": [package.dist for package in running],
        }
        return Digest.of(canonical_json(value))

    def _make(
        self,
        request: BuildRequest,
        running: Sequence[LockedPackage],
        settings: EnvironmentSettings,
        place: Path,
        *,
        active: bool,
    ) -> None:
        wanted = (("post-link scripts", bool(running)), ("activation", active))
        what = " and ".join(text for text, there in wanted if there)
        self._log.step(f"running {what} in the sandbox")
        self._must_run(request, what, _SCRIPTS_OFF)
        packages, linker = _placed(request, request.packages)
        steps: list[Changes] = []
        variables: dict[str, str] = {}
        _sweep(self._environments)
        with fs.temporary_directory(self._environments) as stage:
            materialise(packages, linker, stage / "tree")
            tree = stage / "tree" / request.prefix.lstrip("/")
            with self._runner(request, _SCRIPTS_OFF) as runner:
                for package in running:
                    self._log.detail(f"post-link script of {package.dist}")
                    steps.append(
                        scripts.post_link(runner, package, tree=tree, prefix=request.prefix, work=stage, log=self._log)
                    )
                if settings.activation == "env":
                    variables = scripts.activation(
                        runner, tree=tree, prefix=request.prefix, path=request.path, work=stage
                    )
            _write(stage / "result", joined(steps, _with_parents(packages)), variables)
            shutil.rmtree(place, ignore_errors=True)
            with contextlib.suppress(OSError):  # another process was as fast: its result is as good
                (stage / "result").rename(place)

    @contextlib.contextmanager
    def _runner(self, request: BuildRequest, setting: str) -> Iterator[Runner]:
        """Open the sandbox in the base, as root; where that is not allowed, say how to do without."""
        with contextlib.ExitStack() as stack:
            try:
                runner = stack.enter_context(self._sandbox(_as_root(request), request.base.blobs))
            except BuildError as error:
                hints = [text for text in (error.hint, _LEAVE_OUT.format(setting)) if text]
                raise BuildError(error.message, hint=", ".join(hints), details=error.details) from error
            yield runner

    def _must_run(self, request: BuildRequest, what: str, setting: str) -> None:
        if request.platform not in {self._host, "noarch"}:
            raise BuildError(
                f"{what}: programs of {request.platform} do not run on this {self._host} machine",
                hint=f"build on such a machine, {_LEAVE_OUT.format(setting)} "
                f"([variants.{request.image_type}.platform.{request.platform}])",
            )
        if not request.base.image.layers:
            raise BuildError(
                f"{what}: the base {request.base.reference} has no files, so no program runs in it",
                hint=f"use a base with a shell and a C library, {_LEAVE_OUT.format(setting)}",
            )

    def _modules(self, request: BuildRequest) -> BuildRequest:
        """Compile the modules of all packages whose compiled modules are not in the cache."""
        python = next((package for package in request.packages if package.name == "python"), None)
        settings = Python.of(request.packages)
        if python is None or settings is None:
            return request
        names = {package.dist: bytecode.key(package, python, settings, request.prefix) for package in request.packages}
        cachedir.use(self._compiled, [self._compiled / name for name in names.values()])
        missing = [item for item in request.packages if not (self._compiled / names[item.dist]).is_file()]
        if missing:
            self._compile(request, settings, missing, names)
        compiled = {dist: bytecode.Pack(self._compiled / name, name) for dist, name in names.items()}
        return dataclasses.replace(request, compiled=compiled)

    def _compile(
        self, request: BuildRequest, python: Python, missing: Sequence[LockedPackage], names: Mapping[str, str]
    ) -> None:
        jobs = [
            bytecode.job(
                read_manifest(package, DirectoryReader(request.fetched[package.dist].directory), python), python
            )
            for package in missing
        ]
        todo = [job for job in jobs if job.modules]
        for job in jobs:
            if not job.modules:
                bytecode.write_pack(self._compiled / names[job.manifest.package.dist], {})
        if not todo:
            return
        self._log.step(f"compiling the Python modules of {len(todo)} packages")
        self._must_run(request, "compiling Python modules", _MODULES_OFF)
        needed = bytecode.closure("python", request.packages)
        _sweep(self._compiled)
        with fs.temporary_directory(self._compiled) as stage:
            packages, linker = _placed(request, [package for package in request.packages if package.name in needed])
            materialise(packages, linker, stage / "tree")
            for number, job in enumerate(todo):
                own = PlacedPackage(
                    job.manifest, {path: path for path in job.manifest.targets},
                    request.fetched[job.manifest.package.dist].directory,
                )  # fmt: skip
                wanted = set(job.modules)
                materialise([own], linker, stage / "sources" / str(number), wanted.__contains__)
            with self._runner(request, _MODULES_OFF) as runner:
                results = bytecode.compile_modules(
                    runner, todo, sources=stage / "sources", tree=stage / "tree" / request.prefix.lstrip("/"),
                    prefix=request.prefix, python=python, work=stage, workers=request.workers,
                )  # fmt: skip
            failed = sum(len(job.modules) - len(result) for job, result in zip(todo, results, strict=True))
            if failed:
                self._log.detail(f"{failed} files are no valid modules of this Python; they stay as they are")
            for job, result in zip(todo, results, strict=True):
                bytecode.write_pack(self._compiled / names[job.manifest.package.dist], result)


def _sweep(directory: Path) -> None:
    """Remove what killed builds left."""
    directory.mkdir(parents=True, exist_ok=True)
    fs.sweep_old(directory)


def _as_root(request: BuildRequest) -> Image:
    """Return the base, run as root whatever user it has."""
    image = request.base.image
    return image.with_config(User="0") if image.runtime.get("User") else image


def _placed(request: BuildRequest, packages: Sequence[LockedPackage]) -> tuple[list[PlacedPackage], Linker]:
    python = Python.of(request.packages)
    found = [(package, request.fetched[package.dist].directory) for package in packages]
    return placed(found, python), Linker(request.prefix, *request.owner, python)


def _with_parents(packages: Sequence[PlacedPackage]) -> frozenset[str]:
    """Return all paths of packages and the directories above them."""
    paths: set[str] = set()
    for package in packages:
        for target in package.manifest.targets:
            path = package.moved.get(target, target)
            while path and path not in paths:
                paths.add(path)
                path = path.rpartition("/")[0]
    return frozenset(paths)


def _write(place: Path, changes: Changes, variables: Mapping[str, str]) -> None:
    place.mkdir(mode=0o755)
    with (place / "changes.tar").open("xb") as out:
        write_tar(entries(changes, "", (0, 0)), out.write)
    data = (place / "changes.tar").read_bytes()
    record = {"schema": SCHEMA, "activation": dict(variables), "changes": str(Digest.of(data))}
    fs.atomic_write(place / "record.json", canonical_json(record))


def _read(place: Path) -> tuple[dict[str, Any], Changes] | None:
    """Return what is in the cache, `None` for nothing or something else."""
    try:
        record: dict[str, Any] = json.loads(fs.read_file(place / "record.json") or b"{}")
        tar = place / "changes.tar"
        if record.get("schema") != SCHEMA or str(Digest.of(tar.read_bytes())) != record["changes"]:
            return None
    except (ValueError, KeyError, FileNotFoundError):
        return None
    return record, read_changes(tar)


def environments_kind(cache_dir: Path) -> cachedir.CacheKind:
    """Return how the outcomes of scripts in the cache are listed."""
    return _kind("environments", "what post-link and activation scripts did", cache_dir)


def modules_kind(cache_dir: Path) -> cachedir.CacheKind:
    """Return how the compiled modules in the cache are listed."""
    return _kind("pyc", "compiled Python modules of packages", cache_dir)


def _kind(name: str, title: str, cache_dir: Path) -> cachedir.CacheKind:
    place = cache_dir / name / "v1"

    def listed() -> Iterator[cachedir.CacheEntry]:
        yield from cachedir.unfinished(place, [place])
        for path in sorted(place.glob("[0-9a-f]*")):
            used = cachedir.last_used([path])
            yield cachedir.CacheEntry(
                name=path.name, size=cachedir.size_of(path), used=used, markers=(path,), paths=(path,)
            )

    return cachedir.CacheKind(name, title, place, listed)
