"""Builds, exports and containers of a Docker Engine, effects: the part of `DockerDaemon` that runs things.

The engine says in the stream, with HTTP 200, what went wrong; every message is read. A build's connection is its life:
closing it ends the build, and the engine removes what it had begun.
"""

import collections
import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from lockyard import fs, process
from lockyard.errors import BuildError
from lockyard.oci.archive import ChunkStream, read_archive
from lockyard.ports.containers import ContainerRun, EngineBuild, RunResult

if TYPE_CHECKING:
    import docker

T = TypeVar("T")
SHOWN_LINES = 40
_STEP_RE = re.compile(r"Step \d+/\d+ : ")
_RUNNING_RE = re.compile(r"^ ---> Running in ([0-9a-f]{12,64})$")
_REMOVAL = 30.0  # seconds that the engine may take to remove a container
_KEPT = 8 << 20  # bytes of a container's log that are kept, from the end
_CDI_GPU = "nvidia.com/gpu"
MARK = "lockyard.run"
"""The label of every container that we start: what a killed run leaves can be found by it."""


class DockerBuilds:
    """Builds and containers through the Docker Engine API; several threads may use it at once."""

    def __init__(self, connect: Callable[[], "docker.DockerClient"]) -> None:
        self._connect = connect
        self._running: set[Any] = set()
        self._guard = threading.Lock()
        self._cancelled = False

    @contextlib.contextmanager
    def _connection(self) -> Iterator[tuple[Any, list[Any]]]:
        """Give an API connection of its own, and the list that its last response is put into."""
        client = self._connect()
        responses: list[Any] = []
        client.api.hooks["response"].append(lambda response, *_, **__: responses.append(response))
        try:
            yield client.api, responses
        finally:
            for response in responses:
                response.close()
            client.close()

    def build(self, build: EngineBuild, context: Callable[[], Iterator[bytes]], say: Callable[[str], None]) -> str:
        """Build an image and return its id; `context` gives the bytes of a tar, `say` gets every line of the log.

        Raises:
            BuildError: a step failed; the details are the step and its last lines.

        """
        with docker_errors(), self._connection() as (api, responses):
            messages = api.build(
                fileobj=context(), custom_context=True, dockerfile=build.dockerfile, buildargs=dict(build.args),
                labels=dict(build.labels), tag=build.name, rm=True, forcerm=True, decode=True, platform=build.platform,
                network_mode=build.network, nocache=build.no_cache,
            )  # fmt: skip
            running: list[str] = []
            with _timed(build.timeout, responses) as late:
                try:
                    with self._cancellable(responses):
                        return self._follow(messages, build, say, running)
                except BaseException as error:
                    # The engine ends a build whose client has gone, some time later: nobody waits for that but us.
                    _at_best(lambda: self._end(running))
                    if late.is_set():
                        raise BuildError(f"{build.what}: the build took longer than {build.timeout:g} s") from error
                    raise

    def _end(self, containers: Sequence[str]) -> None:
        """Remove the container that a build was at, if it is still there."""
        import docker.errors

        with self._connection() as (api, _):
            for container in containers[-1:]:
                with contextlib.suppress(docker.errors.NotFound):
                    try:
                        api.remove_container(container, force=True, v=True)
                    except docker.errors.APIError:  # the engine is removing it
                        api.wait(container, timeout=_REMOVAL, condition="removed")

    def _follow(
        self, messages: Iterator[dict[str, Any]], build: EngineBuild, say: Callable[[str], None], running: list[str]
    ) -> str:
        """Tell what the engine says and return the image's id; `running` gets the container of each step."""
        found = step = ""
        tail: collections.deque[str] = collections.deque(maxlen=SHOWN_LINES)
        for message in messages:
            if "error" in message or "errorDetail" in message:
                detail = message.get("errorDetail") or {}
                text = str(detail.get("message") or message.get("error")).strip()
                raise BuildError(f"{build.what}: {step or 'the build'} failed: {text}", details=tail)
            found = str((message.get("aux") or {}).get("ID") or found)
            for line in str(message.get("stream") or message.get("status") or "").splitlines():
                plain = line.rstrip()
                if not plain:
                    continue
                if _STEP_RE.match(plain):
                    step = plain
                    tail.clear()
                else:
                    tail.append(plain)
                running += _RUNNING_RE.findall(plain)
                say(plain)
        if self._cancelled:
            raise BuildError(f"{build.what}: the build was ended")
        if not found:
            raise BuildError(f"{build.what}: the engine named no image", details=tail)
        return found

    @contextlib.contextmanager
    def _cancellable(self, responses: list[Any]) -> Iterator[None]:
        """Let `cancel` close the connection; do it ourselves when the caller leaves early."""
        from docker.types import CancellableStream

        stream = CancellableStream(iter(()), responses[-1])
        with self._guard:
            self._running.add(stream)
        try:
            if self._cancelled:
                stream.close()
            yield
        except BaseException:
            _at_best(stream.close)
            raise
        finally:
            with self._guard:
                self._running.discard(stream)

    def cancel(self) -> None:
        """End all builds that run."""
        with self._guard:
            self._cancelled = True
            running = list(self._running)
        for stream in running:
            _at_best(stream.close)

    def export(self, image: str, take: Callable[[IO[bytes]], T]) -> tuple[bytes, tuple[T, ...]]:
        """Give `take` the uncompressed tar of each layer; return the configuration and what it returned, bottom first.

        Raises:
            BuildError: the engine fails.

        """
        with docker_errors(), self._connection() as (api, responses):
            chunks = api.get_image(image, chunk_size=1 << 20)
            with self._cancellable(responses):
                return read_archive(cast("IO[bytes]", ChunkStream(chunks)), take, source=f"Docker's export of {image}")

    def identify(self, reference: str) -> str:
        """Return `NAME@sha256:…` of an image that the engine has or can pull, its id when it was made here."""
        import docker.errors

        with docker_errors(), self._connection() as (api, _):
            try:
                found = api.inspect_image(reference)
            except docker.errors.NotFound:
                repository, _, tag = reference.rpartition(":")
                for message in api.pull(repository or reference, tag=tag or "latest", stream=True, decode=True):
                    if "error" in message:
                        raise BuildError(f"{reference} cannot be pulled: {message['error']}") from None
                found = api.inspect_image(reference)
            digests = found.get("RepoDigests") or [found["Id"]]
            return str(digests[0])

    def run(self, run: ContainerRun) -> RunResult:
        """Run a container to its end, until a line of its log, or until its time is over; it is removed then."""
        with docker_errors(), self._connection() as (api, responses):
            host = api.create_host_config(**host_options(run, api.info() if run.gpu else {}))
            made = api.create_container(
                run.image, command=list(run.argv) or None, environment=dict(run.env), host_config=host,
                name=f"lockyard-{process.temporary_name()}", labels={MARK: run.label},
            )["Id"]  # fmt: skip
            try:
                api.start(made)
                output = api.logs(made, stdout=True, stderr=True, stream=True, follow=True)
                return self._watch(api, made, output, responses, run)
            finally:
                api.remove_container(made, force=True, v=True)

    def _watch(
        self, api: Any, container: str, output: Iterator[bytes], responses: list[Any], run: ContainerRun
    ) -> RunResult:
        late = threading.Event()

        def end() -> None:
            late.set()
            _at_best(lambda: _kill(self._connect, container))

        timer = threading.Timer(run.timeout, end) if run.timeout is not None else None
        kept = bytearray()
        found = False
        pattern = re.compile(run.until) if run.until is not None else None
        try:
            if timer is not None:
                timer.start()
            with self._cancellable(responses):
                for line in _lines(output):
                    kept += line
                    del kept[:-_KEPT]
                    if pattern is not None and pattern.search(line.decode(errors="replace").rstrip("\n")):
                        found = True
                        break
        finally:
            if timer is not None:
                timer.cancel()
        if found:
            return RunResult(0, kept.decode(errors="replace"), found=True)
        code = int(api.wait(container)["StatusCode"])
        text = kept.decode(errors="replace")
        return RunResult(code, f"{text}\nkilled after {run.timeout:g} s\n" if late.is_set() else text)

    def remove_image(self, name: str) -> None:
        """Remove a name, and the image when it was its last one; nothing when it is not there."""
        import docker.errors

        with docker_errors(), self._connection() as (api, _), contextlib.suppress(docker.errors.NotFound):
            api.remove_image(name, force=False, noprune=False)

    def sweep(self) -> None:
        """Remove what killed runs on this machine have left: their containers, and images that were only for them."""
        import docker.errors

        with docker_errors(), self._connection() as (api, _):
            for container in api.containers(all=True, filters={"label": MARK}):
                if any(map(process.is_left_over, container["Names"] or ())):
                    with contextlib.suppress(docker.errors.APIError):  # another run sweeps at the same time
                        api.remove_container(container["Id"], force=True, v=True)
            names = [tag for item in api.images() for tag in item["RepoTags"] or ()]
            for name in filter(process.is_left_over, names):
                with contextlib.suppress(docker.errors.APIError):
                    api.remove_image(name)

    def has_gpu(self) -> bool:
        """Tell whether containers can be given a GPU."""
        with docker_errors(), self._connection() as (api, _):
            return gpu_request(api.info()) is not None


def host_options(run: ContainerRun, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the host's part of a container; `info` is what the engine says of itself, for a GPU."""
    gpu = gpu_request(info) if run.gpu else None
    return {
        "network_mode": run.network, "shm_size": run.shm_size, "auto_remove": False, "init": True,
        "device_requests": [gpu] if gpu is not None else None,
    }  # fmt: skip


def gpu_request(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how an engine is asked for all GPUs, `None` when it has no way to pass one.

    NVIDIA's runtime passes them by its own driver; engines since 28.2 list devices of the Container Device Interface.
    """
    if "nvidia" in (info.get("Runtimes") or {}):
        return {"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}
    if any(str(item.get("ID", "")).startswith(f"{_CDI_GPU}=") for item in info.get("DiscoveredDevices") or ()):
        return {"Driver": "cdi", "DeviceIDs": [f"{_CDI_GPU}=all"]}
    return None


@contextlib.contextmanager
def _timed(seconds: float | None, responses: list[Any]) -> Iterator[threading.Event]:
    """Close a connection when the time is over; the event tells that it was."""
    from docker.types import CancellableStream

    late = threading.Event()

    def end() -> None:
        late.set()
        _at_best(lambda: CancellableStream(iter(()), responses[-1]).close())

    timer = threading.Timer(seconds, end) if seconds is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield late
    finally:
        if timer is not None:
            timer.cancel()


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Give whole lines; the last one may have no end."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


@contextlib.contextmanager
def docker_errors() -> Iterator[None]:
    """Turn the library's failures into ours."""
    import docker.errors
    import requests
    import urllib3

    try:
        yield
    except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        if fs.is_full(error):
            raise  # a disk of ours, not the daemon's
        raise BuildError(f"the Docker daemon failed: {error}") from error


def _kill(connect: Callable[[], "docker.DockerClient"], container: str) -> None:
    """Kill a container over a connection of its own: the other one is being read."""
    client = connect()
    try:
        client.api.kill(container)
    finally:
        client.close()


def _at_best(effect: Callable[[], object]) -> None:
    """End something in the engine, or try to: it may be over, and the client library has many ways to say so."""
    with contextlib.suppress(Exception):
        effect()
