"""A Docker daemon, effects: images are loaded into it from their layouts. The one home of the `docker` library.

Loading is thin: an archive in the form of `docker save` whose layer files are left out where the daemon has the layers
already, as the lower layers of an image that it holds. A daemon that wants them all gets them all.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lockyard.engines.docker_build import DockerBuilds, docker_errors
from lockyard.errors import BuildError
from lockyard.oci.image import Image, Layer
from lockyard.oci.tar import BLOCK, Entry, header
from lockyard.oci.values import Digest, MediaType
from lockyard.ports import Log
from lockyard.ports.containers import Loaded

if TYPE_CHECKING:
    import docker

_SOCKET = "unix:///var/run/docker.sock"
_CONNECT = 3  # seconds that a daemon may take to answer at all
_LOAD = 1800  # seconds of silence while it unpacks
_INSPECTED = 400  # images that are looked at for layers in common


class DockerDaemon(DockerBuilds):
    """The `Daemon` port on the Docker Engine API."""

    def __init__(self, connect: Callable[[], "docker.DockerClient"], log: Log) -> None:
        super().__init__(connect)
        self._api: Any = connect().api
        self._log = log

    def close(self) -> None:
        """Close connections."""
        self._api.close()

    def load(self, image: Image, blobs: Mapping[Digest, Path], name: str) -> Loaded:
        """Load an image as `NAME:TAG`; nothing is sent when it is there.

        Raises:
            BuildError: the daemon refuses it.

        """
        with docker_errors():
            if self._is_there(name, image):
                return Loaded(name, 0, len(image.layers))
            shared = self._shared(image, name)
            if not shared:
                return self._load(image, blobs, name, 0)
            try:
                return self._load(image, blobs, name, shared)
            except BuildError as error:
                self._log.detail(f"the daemon did not take the short archive ({error.message}); all layers are sent")
                return self._load(image, blobs, name, 0)

    def _is_there(self, name: str, image: Image) -> bool:
        found = self._inspect(name)
        if found is not None and found["Id"] == str(image.config_descriptor.digest):
            return True
        if self._inspect(str(image.config_descriptor.digest)) is None:
            return False
        repository, _, tag = name.rpartition(":")
        return bool(self._api.tag(str(image.config_descriptor.digest), repository, tag))

    def _inspect(self, name: str) -> dict[str, Any] | None:
        import docker.errors

        try:
            return dict(self._api.inspect_image(name))
        except docker.errors.NotFound:
            return None

    def _shared(self, image: Image, name: str) -> int:
        """Return how many of the lowest layers the daemon has in this order, as part of some image."""
        wanted = [str(layer.diff_id) for layer in image.layers]
        repository = name.rpartition(":")[0]
        images = self._api.images(all=False)
        # Older versions of this image come first: they have most in common.
        mine = [item for item in images if any(tag.startswith(f"{repository}:") for tag in item.get("RepoTags") or ())]
        others = [item for item in images if item not in mine]
        best = 0
        for item in [*mine, *others][:_INSPECTED]:
            found = self._inspect(item["Id"])
            layers = ((found or {}).get("RootFS") or {}).get("Layers") or []
            best = max(best, _common(layers, wanted))
            if best == len(wanted):
                break
        return best

    def _load(self, image: Image, blobs: Mapping[Digest, Path], name: str, shared: int) -> Loaded:
        sent = image.layers[shared:]
        total = sum(layer.descriptor.size for layer in sent)
        with self._log.progress(f"loading {name}", total, "B") as advance:
            archive = archive_of(image, blobs, name, left_out=shared, advance=advance)
            # The daemon answers 200 and says in the stream what went wrong.
            for message in self._api.load_image(archive, quiet=True):
                if "error" in message or "errorDetail" in message:
                    text = (message.get("errorDetail") or {}).get("message") or message.get("error")
                    raise BuildError(f"Docker does not load {name}: {text}")
        found = self._inspect(name)
        if found is None or found["RootFS"].get("Layers") != [str(layer.diff_id) for layer in image.layers]:
            raise BuildError(f"Docker loaded something else than {name}")
        return Loaded(name, total, shared)


def open_containers(environ: Mapping[str, str], log: Log) -> DockerDaemon:
    """Return the Docker daemon that `DOCKER_HOST` names, or the local one.

    Raises:
        BuildError: none answers.

    """
    found = open_daemon(environ, log)
    if found is None:
        host = environ.get("DOCKER_HOST") or _SOCKET
        raise BuildError(
            f"no Docker daemon answers at {host}",
            hint="start one or set DOCKER_HOST; without one: a finish Dockerfile with no RUN (--engine native)",
        )
    found.sweep()
    return found


def open_daemon(environ: Mapping[str, str], log: Log) -> DockerDaemon | None:
    """Return the Docker daemon that `DOCKER_HOST` names, or the local one; `None` when none answers."""
    host = environ.get("DOCKER_HOST") or _SOCKET
    if host.startswith("unix://") and not Path(host.removeprefix("unix://")).exists():
        return None  # the usual case without Docker: its library is not even loaded
    import docker
    import docker.errors
    import requests

    try:
        with contextlib.closing(docker.from_env(environment={**environ}, timeout=_CONNECT).api) as probe:
            probe.ping()
        return DockerDaemon(lambda: docker.from_env(environment={**environ}, timeout=_LOAD), log)
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        log.detail(f"no Docker daemon answers at {host}: {error}")
        return None


def archive_of(
    image: Image, blobs: Mapping[Digest, Path], name: str, *, left_out: int, advance: Callable[[int], None]
) -> Iterator[bytes]:
    """Give the bytes of a `docker save` archive of an image, without the files of its `left_out` lowest layers."""
    config = f"{image.config_descriptor.digest.hex}.json"
    files = [f"{layer.descriptor.digest.hex}.tar" for layer in image.layers]
    manifest = [{"Config": config, "RepoTags": [name], "Layers": files}]
    yield from _member("manifest.json", [data := json.dumps(manifest).encode()], len(data))
    yield from _member(config, [image.config_bytes], len(image.config_bytes))
    done: set[str] = set()
    for file, layer in zip(files[left_out:], image.layers[left_out:], strict=True):
        if file not in done:
            done.add(file)
            with _layer(layer, blobs[layer.descriptor.digest]) as stream:
                size = stream.seek(0, 2)
                stream.seek(0)
                yield from _member(file, iter(lambda: stream.read(BLOCK), b""), size)
        advance(layer.descriptor.size)
    yield bytes(1024)


def _member(name: str, chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    yield header(Entry(name.encode(), "file", 0o644, size=size))
    yield from chunks
    yield bytes(-size % 512)


@contextlib.contextmanager
def _layer(layer: Layer, path: Path) -> Iterator[IO[bytes]]:
    """Open a layer in a form that every daemon reads: older ones know no zstd."""
    with path.open("rb") as stream:
        if layer.descriptor.media_type != MediaType.LAYER_ZSTD:
            yield stream
            return
        import zstandard

        with tempfile.TemporaryFile() as plain:
            with zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True) as reader:
                shutil.copyfileobj(reader, plain, BLOCK)
            yield plain


def _common(there: Iterable[str], wanted: Iterable[str]) -> int:
    count = 0
    for one, other in zip(there, wanted, strict=False):
        if one != other:
            break
        count += 1
    return count
