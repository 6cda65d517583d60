"""Where a repository is and what its registry allows: the names of Amazon ECR, its quotas and limits. No I/O.

Names: Amazon ECR User Guide, "Private registry", and Amazon ECR Public, "Registry concepts". Numbers: "Amazon ECR service
quotas" and "Amazon ECR Public service quotas" (the defaults of an account; a quota is a limit per account and region).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from lockyard.errors import ConfigError

PUBLIC_HOST: Final = "public.ecr.aws"
PUBLIC_REGION: Final = "us-east-1"
"""The one region whose API serves ECR Public."""
_PRIVATE_RE = re.compile(
    r"(?P<account>\d{12})\.dkr(?P<kind>\.ecr|\.ecr-fips|-ecr|-ecr-fips)\.(?P<region>[a-z]{2}(?:-[a-z]+)+-\d{1,2})"
    r"\.(?P<domain>amazonaws\.com(?:\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn)"
)
_REGION_RE = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d{1,2}")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class EcrPlace:
    """A repository of Amazon ECR; `account` is empty for ECR Public."""

    host: str
    name: str
    region: str
    account: str = ""

    @property
    def is_public(self) -> bool:
        """Whether it is in ECR Public."""
        return not self.account

    @property
    def command(self) -> str:
        """How the AWS command line names this kind: `aws ecr --region R` or `aws ecr-public …`."""
        return f"aws {'ecr-public' if self.is_public else 'ecr'} --region {self.region}"

    @property
    def create_command(self) -> str:
        """The command that makes the repository."""
        name = self.name.partition("/")[2] if self.is_public else self.name
        return f"{self.command} create-repository --repository-name {name}"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a registry allows: requests per second by operation, the largest blob in bytes, how to make a repository.

    `create` is empty where a first push makes the repository. `login` is the hint when it refuses who we are.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    max_blob: int | None = None
    create: str = ""
    login: str = ""


_LOGIN = "`aws sts get-caller-identity` says who you are; docs/how-to/publish-to-ecr.md lists the permissions"
GENERIC: Final = Profile()
_PRIVATE: Final = Profile(
    {
        "BatchCheckLayerAvailability": 1000,
        "InitiateLayerUpload": 100,
        "UploadLayerPart": 500,
        "CompleteLayerUpload": 100,
        "PutImage": 10,
        "BatchGetImage": 2000,
    },
    max_blob=52_000 * _MIB,
    login=_LOGIN,
)
_PUBLIC: Final = Profile(
    {
        "BatchCheckLayerAvailability": 200,
        "InitiateLayerUpload": 10,
        "UploadLayerPart": 260,
        "CompleteLayerUpload": 10,
        "PutImage": 10,
    },
    max_blob=10_000 * _MIB,
    login=_LOGIN,
)


def parse_ecr(repository: str) -> EcrPlace | None:
    """Return the place of `HOST/NAME` in Amazon ECR, `None` when it is another registry.

    >>> place = parse_ecr("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/image")
    >>> place.region, place.account, place.name
    ('eu-west-1', '123456789012', 'team/image')

    Raises:
        ConfigError: it is in ECR Public without an alias.

    """
    host, _, name = repository.partition("/")
    if host == PUBLIC_HOST:
        if "/" not in name:
            raise ConfigError(f"{repository!r} names no alias", hint=f"write {PUBLIC_HOST}/ALIAS/NAME")
        return EcrPlace(host, name, PUBLIC_REGION)
    match = _PRIVATE_RE.fullmatch(host)
    return EcrPlace(host, name, match["region"], match["account"]) if match else None


def in_region(repository: str, region: str) -> str:
    """Return `repository` in another region; what is not in a private ECR registry stays.

    >>> in_region("123456789012.dkr.ecr.eu-west-1.amazonaws.com/a", "us-east-2")
    '123456789012.dkr.ecr.us-east-2.amazonaws.com/a'

    Raises:
        ConfigError: `region` is not the name of a region.

    """
    if not _REGION_RE.fullmatch(region):
        raise ConfigError(f"{region!r} is not an AWS region", hint="write one such as eu-west-1")
    host, slash, name = repository.partition("/")
    match = _PRIVATE_RE.fullmatch(host)
    if match is None:
        return repository
    domain = match["domain"]
    if domain.startswith("amazonaws"):
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"{match['account']}.dkr{match['kind']}.{region}.{domain}{slash}{name}"


def base_url(place: EcrPlace, endpoint: str) -> str:
    """Return the base address of the registry: the `proxyEndpoint` of its token.

    That of a token may be the registry of the *caller's* account: one that is plainly another registry is not followed.
    """
    other = _PRIVATE_RE.fullmatch(urlsplit(endpoint).netloc)
    if not endpoint or (other is not None and urlsplit(endpoint).netloc != place.host):
        return f"https://{place.host}"
    return endpoint.rstrip("/")


def profile_of(repository: str) -> Profile:
    """Return what the registry of `HOST/NAME` allows.

    Raises:
        ConfigError: it is in ECR Public without an alias.

    """
    place = parse_ecr(repository)
    if place is None:
        return GENERIC
    return replace(_PUBLIC if place.is_public else _PRIVATE, create=place.create_command)


def operation(method: str, url: str) -> str:
    """Return the operation of Amazon ECR that a request becomes, empty when none of them is limited.

    >>> operation("PUT", "https://example.com/v2/a/manifests/1.0"), operation("POST", "https://e.com/v2/a/blobs/uploads/")
    ('PutImage', 'InitiateLayerUpload')
    """
    path = urlsplit(url).path
    if "/manifests/" in path:
        return "PutImage" if method == "PUT" else "BatchGetImage"
    if "/blobs/uploads/" in path:
        return {"POST": "InitiateLayerUpload", "PATCH": "UploadLayerPart", "PUT": "CompleteLayerUpload"}.get(method, "")
    return "BatchCheckLayerAvailability" if "/blobs/" in path and method == "HEAD" else ""
