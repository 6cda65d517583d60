"""Names of Amazon ECR, limits, and token buckets on a clock that is moved by hand."""

import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.errors import ConfigError
from lockyard.registry.pacer import Pacer
from lockyard.registry.places import base_url, in_region, operation, parse_ecr, profile_of
from lockyard.registry.wire import retry_after

PRIVATE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/image"


@pytest.mark.parametrize(
    ("repository", "region", "account"),
    [
        (PRIVATE, "eu-west-1", "123456789012"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a", "cn-north-1", "123456789012"),
        ("123456789012.dkr.ecr.us-gov-west-1.amazonaws.com/a", "us-gov-west-1", "123456789012"),
        ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com/a", "us-east-1", "123456789012"),
        ("123456789012.dkr-ecr.us-east-1.on.aws/a", "us-east-1", "123456789012"),
        ("public.ecr.aws/alias/team/image", "us-east-1", ""),
    ],
)
def test_a_place_in_ecr(repository: str, region: str, account: str) -> None:
    place = parse_ecr(repository)
    assert place is not None
    assert (place.region, place.account, f"{place.host}/{place.name}") == (region, account, repository)


@pytest.mark.parametrize(
    "repository",
    [
        "registry.example.com/team/image",
        "12345.dkr.ecr.eu-west-1.amazonaws.com/a",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com.example.com/a",
        "x123456789012.dkr.ecr.eu-west-1.amazonaws.com/a",
        "public.ecr.aws.example.com/a/b",
    ],
)
def test_what_only_looks_like_ecr(repository: str) -> None:
    assert parse_ecr(repository) is None
    assert in_region(repository, "us-east-2") == repository


def test_public_needs_an_alias() -> None:
    with pytest.raises(ConfigError):
        parse_ecr("public.ecr.aws/image")


def test_a_region_of_another_partition() -> None:
    assert in_region(PRIVATE, "cn-north-1") == "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/team/image"


def test_limits() -> None:
    private, public = profile_of(PRIVATE), profile_of("public.ecr.aws/alias/image")
    assert (private.max_blob, public.max_blob) == (52_000 << 20, 10_000 << 20)
    assert private.rates["PutImage"] == 10
    assert private.rates["InitiateLayerUpload"] == private.rates["CompleteLayerUpload"] == 100
    assert private.create == "aws ecr --region eu-west-1 create-repository --repository-name team/image"
    assert public.create == "aws ecr-public --region us-east-1 create-repository --repository-name image"
    assert profile_of("registry.example.com/a").max_blob is None


def test_the_endpoint_of_another_account_is_not_followed() -> None:
    place = parse_ecr(PRIVATE)
    assert place is not None
    assert base_url(place, f"https://{place.host}/") == f"https://{place.host}"
    assert base_url(place, "http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    assert base_url(place, "") == f"https://{place.host}"
    assert base_url(place, "https://999999999999.dkr.ecr.eu-west-1.amazonaws.com") == f"https://{place.host}"


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("HEAD", "blobs/sha256:00", "BatchCheckLayerAvailability"),
        ("GET", "blobs/sha256:00", ""),
        ("POST", "blobs/uploads/?mount=sha256:00&from=b", "InitiateLayerUpload"),
        ("PATCH", "blobs/uploads/1", "UploadLayerPart"),
        ("PUT", "blobs/uploads/1?digest=sha256:00", "CompleteLayerUpload"),
        ("GET", "blobs/uploads/1", ""),
        ("PUT", "manifests/1.0", "PutImage"),
        ("HEAD", "manifests/1.0", "BatchGetImage"),
        ("GET", "tags/list", ""),
    ],
)
def test_operations(method: str, path: str, name: str) -> None:
    assert operation(method, f"https://example.com/v2/team/image/{path}") == name


class Hands:
    """Time that passes only while someone waits."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.at += seconds


@given(rate=st.integers(1, 50), count=st.integers(1, 300))
def test_no_second_has_more_than_the_rate_after_the_burst(rate: int, count: int) -> None:
    hands = Hands()
    pacer = Pacer({"PutImage": rate}, now=hands.now, sleep=hands.sleep)
    times = []
    for _ in range(count):
        pacer.take("PutImage")
        times.append(hands.at)
    late = times[rate:]
    assert all(later - earlier > 1 / rate - 1e-6 for earlier, later in itertools.pairwise(late))
    assert times[-1] - times[0] == pytest.approx(max(0, count - rate) / rate)


def test_operations_do_not_wait_for_each_other() -> None:
    hands = Hands()
    pacer = Pacer({"PutImage": 1}, now=hands.now, sleep=hands.sleep)
    for _ in range(100):
        pacer.take("UploadLayerPart")
    pacer.take("PutImage")
    assert hands.at == 100.0
    pacer.take("PutImage")
    assert hands.at == 101.0
    hands.at += 1000
    pacer.take("PutImage")
    pacer.take("PutImage")
    assert hands.at == 1102.0, "what was not used is not saved up for more than a second"


def test_retry_after() -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert retry_after("Thu, 01 Jan 2026 00:00:05 GMT", now) == 5
    assert retry_after("Thu, 01 Jan 2025 00:00:05 GMT", now) == 0
    assert retry_after("", now) is None
    assert retry_after("-1", now) is None
