"""Images taken out of a container engine, effects: layer by layer, compressed by us, each image once.

An engine names an image by the digest of its configuration, and so by its content: what an export of it gave is kept in the
cache (the configuration, what each layer does to `conda-meta`; the layers' blobs are there anyway) and not asked for again.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lockyard.engines.request import BuildRequest, BuiltLayer, CachedLayer, LayerCache
from lockyard.errors import ConfigError
from lockyard.oci.condameta import Change, changes_of
from lockyard.oci.image import Layer
from lockyard.oci.tar import BLOCK, LayerBlob, Sink, compress, compressor_id
from lockyard.oci.values import Digest
from lockyard.ports.containers import Builder

Known = Mapping[str, tuple[Layer, Path]]
"""Diff ID → a layer that we made, and its blob."""


@dataclass(frozen=True, slots=True)
class ExportedLayer:
    """One layer of an export: what it is (`None`: one of ours), where, and what it does to `conda-meta`."""

    diff_id: Digest
    built: BuiltLayer | None
    path: Path | None
    change: Change


Export = tuple[bytes, Sequence[ExportedLayer]]
"""The configuration, and the layers, bottom first."""


class Exporter:
    """Takes images out of `containers`; `scratch` has room for the largest layer."""

    def __init__(self, containers: Builder, cache: LayerCache, *, scratch: Path) -> None:
        self._containers = containers
        self._cache = cache
        self._scratch = scratch

    def export(self, request: BuildRequest, image_id: str, known: Known) -> Export:
        """Return configuration and layers of an image; layers of ours keep their blobs.

        Raises:
            BuildError: the engine fails.

        """
        found = self._recalled(request, image_id, known)
        if found is None:
            found = self._fresh(request, image_id, known)
            if _names_content(image_id):
                self._cache.note(_image_key(request, image_id), _note(*found))
        return found

    def last(self, inputs: Mapping[str, Any], request: BuildRequest, known: Known) -> tuple[str, Export] | None:
        """Return the image that the last build of the same inputs gave, when all of it is here."""
        image_id = str((self._cache.recall(inputs) or {}).get("image", ""))
        found = self._recalled(request, image_id, known)
        return None if found is None else (image_id, found)

    def keep_last(self, inputs: Mapping[str, Any], image_id: str) -> None:
        """Remember what a build of these inputs gave."""
        if _names_content(image_id):
            self._cache.note(inputs, {"image": image_id})

    def _recalled(self, request: BuildRequest, image_id: str, known: Known) -> Export | None:
        note = self._cache.recall(_image_key(request, image_id)) if _names_content(image_id) else None
        if note is not None:
            # A note of another hand, or a layer that was pruned: the engine has them.
            with contextlib.suppress(_GoneError, KeyError, TypeError, ValueError, AttributeError, ConfigError):
                return self._noted(request, note, known)
        return None

    def _fresh(self, request: BuildRequest, image_id: str, known: Known) -> Export:
        self._scratch.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(max(1, request.workers), thread_name_prefix="deflate") as executor:
            return self._containers.export(image_id, lambda stream: self._take(request, stream, known, executor))

    def _noted(self, request: BuildRequest, note: Mapping[str, Any], known: Known) -> Export:
        """Return what an earlier export gave.

        Raises:
            _GoneError: a layer is not in the cache any more.

        """

        def gone(_: Sink) -> LayerBlob:
            raise _GoneError

        layers = []
        for item in note["layers"]:
            diff_id = Digest(item["diff_id"])
            if str(diff_id) in known:
                layers.append(ExportedLayer(diff_id, None, None, {}))
                continue
            if item["ours"]:  # what it does was not looked at
                raise _GoneError
            made = self._cache.layer(_layer_key(request, diff_id), "", gone)
            change = {name: None if text is None else text.encode("latin-1") for name, text in item["change"].items()}
            layers.append(ExportedLayer(diff_id, _built_layer(diff_id, made), made.path, change))
        return note["config"].encode(), layers

    def _take(self, request: BuildRequest, stream: IO[bytes], known: Known, executor: Executor) -> ExportedLayer:
        """Read one layer: keep it when it is new, in our compression."""
        with tempfile.TemporaryFile(dir=self._scratch) as plain:
            state = hashlib.sha256()
            size = 0
            while chunk := stream.read(BLOCK):
                state.update(chunk)
                plain.write(chunk)
                size += len(chunk)
            diff_id = Digest(f"sha256:{state.hexdigest()}")
            if str(diff_id) in known:
                return ExportedLayer(diff_id, None, None, {})
            plain.seek(0)
            change = changes_of(plain, request.prefix)
            plain.seek(0)

            def make(sink: Sink) -> LayerBlob:
                blocks = iter(lambda: plain.read(BLOCK), b"")
                return compress(
                    blocks, sink, compression=request.compression, executor=executor, threads=request.workers
                )

            made = self._cache.layer(_layer_key(request, diff_id), "", make)
            return ExportedLayer(diff_id, _built_layer(diff_id, made), made.path, change)


class _GoneError(Exception):
    """A layer that was in the cache is not any more."""


def _names_content(image_id: str) -> bool:
    """Tell whether an id is the digest of the configuration, which names every layer."""
    return image_id.startswith("sha256:")


def _image_key(request: BuildRequest, image_id: str) -> Mapping[str, str]:
    compressor = compressor_id(request.compression)
    return {"exported image": image_id, "prefix": request.prefix, "compressor": compressor}


def _layer_key(request: BuildRequest, diff_id: Digest) -> Mapping[str, str]:
    return {"exported": str(diff_id), "compressor": compressor_id(request.compression)}


def _built_layer(diff_id: Digest, made: CachedLayer) -> BuiltLayer:
    return BuiltLayer(f"container-{diff_id.hex[:12]}", made.layer, made.uncompressed, made.rebuilt)


def _note(config: bytes, layers: Sequence[ExportedLayer]) -> Mapping[str, Any]:
    """Return what is worth remembering of an export, as JSON has it."""
    noted = []
    for item in layers:
        change = {name: None if data is None else data.decode("latin-1") for name, data in item.change.items()}
        noted.append({"diff_id": str(item.diff_id), "ours": item.built is None, "change": change})
    return {"config": config.decode(), "layers": noted}
