"""Amazon ECR, effects: tokens and settings through boto3, which only this module loads."""

import contextlib
import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from lockyard.errors import RegistryError
from lockyard.registry import wire
from lockyard.registry.places import EcrPlace, base_url
from lockyard.registry.settings import RepositorySettings
from lockyard.registry.wire import Credential

_MARGIN = dt.timedelta(minutes=10)
"""A token is renewed so long before it ends: longer than any single request takes."""
_LEAST = dt.timedelta(minutes=1)
_SIGN_IN = "sign in to AWS; `aws sts get-caller-identity` says who you are"


class EcrAccess:
    """The credentials of one ECR registry (`for_host`, `endpoint`) and its settings (`settings`); thread-safe.

    One token serves all repositories of the registry; it is renewed before it ends and when the registry refuses it.

    Args:
        place: any repository of the registry.
        now: the time, aware.
        make_client: makes a boto3 client from a service and a region; the default uses AWS's own configuration.

    """

    def __init__(
        self,
        place: EcrPlace,
        *,
        now: Callable[[], dt.datetime],
        make_client: Callable[[str, str], Any] | None = None,
    ) -> None:
        self._place = place
        self._now = now
        self._make_client = make_client or _client
        self._guard = threading.Lock()
        self._api: Any = None
        self._credential: Credential | None = None
        self._until = now()
        self._endpoint = ""

    def for_host(self, host: str, *, refused: Credential | None = None) -> Credential:  # noqa: ARG002 - it serves one host
        """Return a token that is good for a while; another one than `refused`.

        Raises:
            RegistryError: AWS gives none.

        """
        with self._guard:
            if self._credential is None or self._credential == refused or self._now() >= self._until:
                self._credential = self._fetch()
            return self._credential

    def endpoint(self, host: str) -> str:
        """Return the base address that the token is for.

        Raises:
            RegistryError: AWS gives no token.

        """
        self.for_host(host)
        return base_url(self._place, self._endpoint)

    def settings(self, place: EcrPlace) -> RepositorySettings:
        """Return how a repository of this registry is set up.

        Raises:
            RegistryError: AWS does not say.

        """
        with self._guard:
            return _public_settings(self._client(), place) if place.is_public else _settings(self._client(), place)

    def scan_findings(self, place: EcrPlace, tag: str) -> bytes | None:
        """Return the findings of an image's scan, all pages in one answer of `DescribeImageScanFindings`.

        `None` when the image was not scanned or the scan is not finished.

        Raises:
            RegistryError: AWS does not say.

        """
        with self._guard, _errors(place, "DescribeImageScanFindings"):
            api = self._client()
            request: dict[str, Any] = {
                "registryId": place.account,
                "repositoryName": place.name,
                "imageId": {"imageTag": tag},
                "maxResults": 1000,
            }
            found: dict[str, list[Any]] = {"findings": [], "enhancedFindings": []}
            while True:
                try:
                    answer = api.describe_image_scan_findings(**request)
                except api.exceptions.ScanNotFoundException:
                    return None
                if answer["imageScanStatus"]["status"] not in {"COMPLETE", "ACTIVE"}:
                    return None
                for key in found:
                    found[key] += answer.get("imageScanFindings", {}).get(key) or ()
                if not answer.get("nextToken"):
                    return json.dumps({"imageScanFindings": found}, default=str).encode()
                request["nextToken"] = answer["nextToken"]

    def _fetch(self) -> Credential:
        # Without the account, AWS answers with the registry of the caller's own.
        request = {} if self._place.is_public else {"registryIds": [self._place.account]}
        with _errors(self._place, "GetAuthorizationToken"):
            answer = self._client().get_authorization_token(**request)["authorizationData"]
        data = answer if isinstance(answer, dict) else answer[0]
        name, _, password = wire.decode_basic(str(data["authorizationToken"])).partition(":")
        now = self._now()
        self._until = max(data["expiresAt"] - _MARGIN, now + _LEAST)
        self._endpoint = str(data.get("proxyEndpoint") or "")
        return Credential(name, password)

    def _client(self) -> Any:
        if self._api is None:
            with _errors(self._place, "client"):
                self._api = self._make_client("ecr-public" if self._place.is_public else "ecr", self._place.region)
        return self._api


def _client(service: str, region: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, read_timeout=30)
    return boto3.session.Session().client(service, region_name=region, config=config)


def _settings(api: Any, place: EcrPlace) -> RepositorySettings:
    found = _described(api, place, {"registryId": place.account})
    mounting = None
    with contextlib.suppress(RegistryError), _errors(place, "GetAccountSetting"):
        mounting = api.get_account_setting(name="BLOB_MOUNTING").get("value") == "ENABLED"
    if found is None:
        return RepositorySettings(place, exists=False, blob_mounting=mounting)
    filters = found.get("imageTagMutabilityExclusionFilters") or ()
    return RepositorySettings(
        place,
        exists=True,
        scan_on_push=_scanned(api, place, found),
        mutability=str(found.get("imageTagMutability") or "MUTABLE"),
        exclusions=tuple(str(item["filter"]) for item in filters),
        blob_mounting=mounting,
        encryption=str((found.get("encryptionConfiguration") or {}).get("encryptionType") or ""),
    )


def _public_settings(api: Any, place: EcrPlace) -> RepositorySettings:
    return RepositorySettings(place, exists=_described(api, place, {}) is not None)


def _described(api: Any, place: EcrPlace, more: dict[str, str]) -> Any:
    name = place.name.partition("/")[2] if place.is_public else place.name
    with _errors(place, "DescribeRepositories"):
        try:
            return api.describe_repositories(repositoryNames=[name], **more)["repositories"][0]
        except api.exceptions.RepositoryNotFoundException:
            return None


def _scanned(api: Any, place: EcrPlace, found: Any) -> bool:
    if (found.get("imageScanningConfiguration") or {}).get("scanOnPush"):
        return True
    # The registry's own rules may scan it all the same.
    with contextlib.suppress(RegistryError), _errors(place, "BatchGetRepositoryScanningConfiguration"):
        answer = api.batch_get_repository_scanning_configuration(repositoryNames=[place.name])
        return any(item.get("scanFrequency") not in {None, "MANUAL"} for item in answer["scanningConfigurations"])
    return False


@contextlib.contextmanager
def _errors(place: EcrPlace, operation: str) -> Iterator[None]:
    """Turn boto3's failures into ours; what it says of a request is shown in one bounded line."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

    what = f"Amazon ECR {place.account or 'Public'} {place.region}: {operation}"
    try:
        yield
    except ClientError as error:
        answer = error.response.get("Error", {})
        text = wire.plain(f"{what}: {answer.get('Code', 'refused')}: {answer.get('Message', '')}")
        raise RegistryError(text, hint=_SIGN_IN) from error
    except (NoCredentialsError, NoRegionError) as error:
        raise RegistryError(wire.plain(f"{what}: {error}"), hint=_SIGN_IN) from error
    except BotoCoreError as error:
        raise RegistryError(wire.plain(f"{what}: {error}"), hint="look at the network and AWS's settings") from error
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RegistryError(f"{what}: AWS gave an answer that is none") from error
