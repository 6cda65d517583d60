"""BuildKit, local or a remote cluster, effects: the buildx command line builds, and sends the image back as an archive.

A builder is what `docker buildx ls` names: the BuildKit of a Docker daemon (also one of another context), a container, a
pod, a machine elsewhere. Nothing stays in it but its cache; the environment image goes there as an OCI layout, of which the
builder takes only the layers that it has not.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

from lockyard import fs, process
from lockyard.engines.buildx import ProgressLog, build_arguments, digest_of, redacted, secret_values
from lockyard.errors import BuildError, ConfigError
from lockyard.oci.archive import read_archive
from lockyard.oci.image import Image
from lockyard.oci.values import Digest
from lockyard.ports import Log
from lockyard.ports.containers import BuildSecret, EngineBuild, LayoutWriter, Loaded

T = TypeVar("T")
_PROBE = 30.0  # seconds for `buildx version`


class BuildKit:
    """The `Builder` port; several threads may use it at once. `stage` is a directory of its own."""

    def __init__(
        self,
        tool: Sequence[str],
        environ: Mapping[str, str],
        stage: Path,
        write_layout: LayoutWriter,
        *,
        builder: str | None = None,
        secrets: Sequence[BuildSecret] = (),
    ) -> None:
        self._tool = tuple(tool)
        self._environ = dict(environ)
        self._stage = stage
        self._write_layout = write_layout
        self._builder = builder
        self._secrets = tuple(secrets)
        self._hidden = secret_values(_contents(secrets, environ))
        self._layouts: dict[str, Path] = {}
        self._archives: dict[str, list[Path]] = {}
        self._bases: dict[str, str] = {}
        self._running: set[Callable[[], None]] = set()
        self._guard = threading.Lock()
        self._cancelled = False
        self._numbers = itertools.count(1)
        self._cleanup = contextlib.ExitStack()

    def load(self, image: Image, blobs: Mapping[Digest, Path], name: str) -> Loaded:
        """Have an image ready for `FROM name`; the builder takes what it lacks when it builds."""
        layout = self._stage / f"layout{next(self._numbers)}"
        self._write_layout(layout, image, blobs, name=layout.name)
        self._layouts[name] = layout
        return Loaded(name, 0, len(image.layers))

    def remove_image(self, name: str) -> None:
        """Forget an image."""
        layout = self._layouts.pop(name, None)
        if layout is not None:
            shutil.rmtree(layout, ignore_errors=True)

    def build(self, build: EngineBuild, context: Callable[[], Iterator[bytes]], say: Callable[[str], None]) -> str:
        """Build an image and return what `export` knows it by; `context` gives the bytes of a tar, `say` gets the log.

        Raises:
            BuildError: a step failed; the details are its last lines.
            OSError: there is no room for the image here.

        """
        if build.expected is not None:
            _, told = self._run(build, context, say, archive=None)
            if told == build.expected:
                return told
        # Every step that has just been made is in the builder's cache now.
        archive = self._stage / f"image{next(self._numbers)}.tar"
        log, told = self._run(build, context, say, archive=archive)
        if not archive.exists():
            raise self._failure(build, log)
        name = told or str(archive)
        self._archives.setdefault(name, []).append(archive)
        return name

    def _run(
        self,
        build: EngineBuild,
        context: Callable[[], Iterator[bytes]],
        say: Callable[[str], None],
        *,
        archive: Path | None,
    ) -> tuple[ProgressLog, str]:
        """Call buildx; return its log and the digest of the image's configuration, which names its content."""
        metadata = self._stage / f"metadata{next(self._numbers)}.json"
        used = {name: path for name, path in self._layouts.items() if name in build.args.values()}
        arguments = build_arguments(
            build, builder=self._builder, contexts=used, secrets=self._secrets, archive=archive, metadata=metadata
        )
        log = ProgressLog()

        def take(line: str) -> None:
            shown = log.feed(redacted(line, self._hidden))
            if shown is not None:
                say(shown)

        with self._registered() as started:
            code = process.follow(
                (*self._tool, *arguments), take, env=self._environ, feed=context(), started=started
            )  # fmt: skip
        if self._cancelled:
            raise BuildError(f"{build.what}: the build was ended")
        if code != 0:
            raise self._failure(build, log)
        self._bases |= log.bases
        try:
            return log, str(json.loads(metadata.read_bytes())["containerimage.config.digest"])
        except (OSError, ValueError, KeyError, TypeError):
            return log, ""  # an older buildx: the image has no name that tells its content
        finally:
            metadata.unlink(missing_ok=True)

    def _failure(self, build: EngineBuild, log: ProgressLog) -> Exception:
        failure = log.failure()
        if "no space left on device" in failure.text and str(self._stage) in failure.text:
            # A disk of ours, not the builder's.
            return OSError(errno.ENOSPC, "No space left on device", str(self._stage))
        what = f"{failure.step} failed: {failure.text}" if failure.step else failure.text
        return BuildError(f"{build.what}: {what}", details=failure.lines, hint=_hint(failure.text))

    @contextlib.contextmanager
    def _registered(self) -> Iterator[Callable[[Callable[[], None]], None]]:
        """Give what takes the function that ends a process; `cancel` calls it, also when it comes late."""
        mine: list[Callable[[], None]] = []

        def started(end: Callable[[], None]) -> None:
            mine.append(end)
            with self._guard:
                self._running.add(end)
            if self._cancelled:
                end()

        try:
            yield started
        finally:
            with self._guard:
                self._running.difference_update(mine)

    def cancel(self) -> None:
        """End all builds that run; the builder ends the steps it is at."""
        with self._guard:
            self._cancelled = True
            running = list(self._running)
        for end in running:
            end()

    def export(self, image: str, take: Callable[[IO[bytes]], T]) -> tuple[bytes, tuple[T, ...]]:
        """Give `take` the uncompressed tar of each layer; return the configuration and what it returned, bottom first.

        Raises:
            BuildError: the builder wrote something else.

        """
        archive = self._archives[image].pop()
        try:
            with archive.open("rb") as stream:
                return read_archive(stream, take, source="what BuildKit wrote")
        finally:
            archive.unlink(missing_ok=True)

    def identify(self, reference: str) -> str | None:
        """Return `NAME@sha256:…` of what a build began from, `None` when none did."""
        digest = digest_of(reference, self._bases)
        return None if digest is None else f"{reference.partition('@')[0]}@{digest}"

    def close(self) -> None:
        """Remove what is only for these builds."""
        self._cleanup.close()

    def with_cleanup(self, cleanup: contextlib.ExitStack) -> "BuildKit":
        """Take over what `close` undoes."""
        self._cleanup = cleanup
        return self


def open_buildkit(
    environ: Mapping[str, str],
    cache_dir: Path,
    log: Log,
    write_layout: LayoutWriter,
    *,
    builder: str | None = None,
    secrets: Sequence[BuildSecret] = (),
) -> BuildKit:
    """Return BuildKit behind `builder`, `None` for the one that `docker buildx use` chose.

    Raises:
        BuildError: there is no buildx.
        ConfigError: a secret is not there.

    """
    tool = find_buildx(environ)
    if tool is None:
        raise BuildError(
            "there is no buildx: neither `docker buildx version` nor `docker-buildx version` works",
            hint="install Docker's buildx plugin (Debian: docker-buildx); without it: --engine docker",
        )
    log.detail(f"buildx: {' '.join(tool)}")
    place = cache_dir / "buildkit"
    with contextlib.ExitStack() as stack:
        fs.sweep_old(place)
        stage = stack.enter_context(process.own_directory(place))
        made = BuildKit(
            tool, environment(environ, builder), stage, write_layout, builder=builder, secrets=secrets
        )  # fmt: skip
        return made.with_cleanup(stack.pop_all())


def find_buildx(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return how buildx is called: the first `docker` on the PATH that has it, else the program alone."""
    places = [place for place in (environ.get("PATH") or process.PATH).split(":") if place]
    for name, words in (("docker", ("buildx",)), ("docker-buildx", ()), ("buildx", ())):
        for place in dict.fromkeys(places):
            found = shutil.which(name, path=place)
            if found is not None:
                tool = (found, *words)
                if process.run((*tool, "version"), env=environ, timeout=_PROBE).exit_code == 0:
                    return tool
    return None


def environment(environ: Mapping[str, str], builder: str | None) -> dict[str, str]:
    """Return the environment for buildx: a builder that is a Docker context is reached through that context.

    buildx itself refuses `--builder CONTEXT` unless the context is the current one. A builder of that name comes first.
    """
    home = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/")) / ".docker")
    state = Path(environ.get("BUILDX_CONFIG") or home / "buildx")
    if builder is None or (state / "instances" / builder).exists():
        return dict(environ)
    key = hashlib.sha256(builder.encode()).hexdigest()
    if not (home / "contexts" / "meta" / key / "meta.json").exists():
        return dict(environ)
    kept = {name: value for name, value in environ.items() if name != "DOCKER_HOST"}
    return {**kept, "DOCKER_CONTEXT": builder}


def _contents(secrets: Sequence[BuildSecret], environ: Mapping[str, str]) -> Iterator[str]:
    for secret in secrets:
        if secret.source is not None:
            if "," in str(secret.source):
                raise ConfigError(f"{secret.source}: the path of a build secret has no comma")
            try:
                yield Path(secret.source).read_bytes().decode(errors="replace")
            except OSError as error:
                raise ConfigError(f"the build secret {secret.name}: {secret.source}: {error.strerror}") from error
        elif (value := environ.get(secret.env or secret.name)) is None:
            raise ConfigError(f"the build secret {secret.name}: the variable {secret.env} is not set")
        else:
            yield value


def _hint(text: str) -> str | None:
    """Return the next step for what builders say when they cannot do this kind of build at all."""
    if "exporter is not supported" in text or ("oci-layout" in text.lower() and "not supported" in text):
        return (
            "this daemon's own builder cannot give images back: turn on its containerd image store, "
            "or make a builder with docker buildx create --driver docker-container"
        )
    if "no builder" in text:
        return "docker buildx ls shows the builders"
    return None
