"""Ports of registries: one repository, how to open it, how Amazon ECR keeps it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lockyard.registry.places import EcrPlace
    from lockyard.registry.settings import RepositorySettings


class EcrSettings(Protocol):
    """How repositories of Amazon ECR are set up."""

    def settings(self, place: "EcrPlace") -> "RepositorySettings":
        """Return the settings of one repository.

        Raises:
            RegistryError: AWS does not say.

        """


@dataclass(frozen=True, slots=True)
class UploadSession:
    """An upload that has begun: where it goes on and how many bytes are there, `None` when only the registry knows."""

    location: str
    offset: int | None = None


class BlobContent(Protocol):
    """The bytes of a blob that lies somewhere else; parts of it may be read several times."""

    def read(self, start: int, length: int) -> bytes:
        """Return the bytes from `start` on, exactly `length` of them.

        Raises:
            RegistryError: they cannot be had.

        """


class RegistryPort(Protocol):
    """One repository of a registry, or an OCI layout that stands for one. Thread-safe; every failure is a `RegistryError`.

    A *reference* is a tag or a digest `sha256:…`.
    """

    @property
    def registry(self) -> str | None:
        """What repositories must share to mount each other's blobs; `None` when there is no mounting."""

    @property
    def max_blob(self) -> int | None:
        """Bytes of the largest blob that it takes, `None` without a limit."""

    def manifest_digest(self, reference: str) -> str | None:
        """Return the digest behind a reference, `None` when there is none."""

    def get_manifest(self, reference: str) -> bytes | None:
        """Return the manifest's bytes, `None` when there is none."""

    def put_manifest(self, reference: str, body: bytes, media_type: str) -> bool:
        """Put a manifest under a reference; what it refers to must be there.

        Returns whether the registry itself lists it as a referrer of its `subject`.
        """

    def tags(self) -> tuple[str, ...]:
        """Return all tags, sorted; none when the repository does not exist yet."""

    def present_blobs(self, blobs: Mapping[str, int]) -> frozenset[str]:
        """Return which of the blobs (digest → size in bytes) the repository has."""

    def get_blob(self, digest: str) -> bytes | None:
        """Return the checked bytes of a small blob (a configuration), `None` when there is none.

        Raises:
            HashMismatchError: the answer is something else.

        """

    def download_blob(self, digest: str, size: int, part: Path, *, progress: Callable[[int], None]) -> None:
        """Bring a blob into the file `part`, going on where an earlier call or process stopped, and check it.

        `progress` gets bytes as they are there, negative when they must come again.

        Raises:
            HashMismatchError: what came is something else; the file is removed.

        """

    def mount_blob(self, digest: str, source: str) -> UploadSession | None:
        """Mount a blob from the repository `source` of the same registry.

        Returns `None` when it is mounted, else the session to upload it with.
        """

    def read_blob(self, digest: str, start: int, length: int) -> bytes:
        """Return a part of a blob, exactly `length` bytes, which are not checked."""

    def referrers(self, digest: str) -> bytes | None:
        """Return the index of the manifests whose subject is `digest`, `None` where that cannot be asked.

        Then they are listed under a tag; see `registry.referrers`.
        """

    def upload_blob(
        self,
        source: Path | BlobContent,
        digest: str,
        size: int,
        *,
        progress: Callable[[int], None],
        session: UploadSession | None = None,
        on_session: Callable[[UploadSession], None] | None = None,
    ) -> int:
        """Send one blob in bounded memory, and return the bytes sent.

        `progress` gets bytes as they become part of the blob (negative when they were lost), `on_session` where a large
        upload can go on after this process has died.

        Raises:
            HashMismatchError: `source` is not what `digest` names; the registry has not got it then.

        """

    def close(self) -> None:
        """Close connections."""


class RegistryFactory(Protocol):
    """Opens repositories."""

    def __call__(self, target: str, *, insecure: bool = False, pull_only: bool = False) -> "RegistryPort":
        """Open `HOST/NAME` or `oci:DIR`; `insecure` allows plain http to hosts that are not this machine.

        `pull_only` asks for no right to push.

        Raises:
            ConfigError: the target is malformed.

        """
