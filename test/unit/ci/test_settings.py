"""The `ci` table: its defaults, who signs in where, runners."""

import pytest

from lockyard.ci.settings import Login, Settings, check_runners, settings_of
from lockyard.distribution import Distribution, parse_distribution
from lockyard.errors import ConfigError

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
STAGE = f'stage = {{ uri = "{ECR}/stage", stage = true }}\n'


def distribution(repositories: str = f'{STAGE}production = "{ECR}/image"\n', ci: str = "") -> Distribution:
    text = f'name = "small"\n[repositories]\n{repositories}{ci and f"[ci]{chr(10)}{ci}"}'
    return parse_distribution(text, source="lockyard.toml")


def settings(repositories: str = f'{STAGE}production = "{ECR}/image"\n', ci: str = "") -> Settings:
    return settings_of(distribution(repositories, ci), config="lockyard.toml", version="1.2.3")


def test_defaults_need_no_table() -> None:
    found = settings()
    assert (found.branch, found.python, found.install, found.runner) == (
        "main",
        "3.12",
        "lockyard==1.2.3",
        "ubuntu-24.04",
    )
    assert (found.stage, found.publish) == ("stage", ("production",))
    assert found.stage_logins == (Login("aws", ECR, region="eu-west-1"),)


def test_the_table() -> None:
    found = settings(
        f'{STAGE}other = {{ uri = "ghcr.io/team/stage", stage = true }}\na = "example.com/a"\nb = "example.com/b"\n',
        'branch = "trunk"\ninstall = ["--require-hashes", "-r", "tools/lock yard.txt"]\npython = "3.11"\nstage = "other"\n'
        'publish = ["b"]\nrunner = ["self-hosted", "big"]\n',
    )
    assert (found.branch, found.python, found.runner) == ("trunk", "3.11", ("self-hosted", "big"))
    assert found.install == "--require-hashes -r 'tools/lock yard.txt'"
    assert (found.stage, found.publish) == ("other", ("b",))
    assert found.publish_logins == (Login("github", "ghcr.io"), Login("other", "example.com", secret="LOCKYARD_B"))


def test_each_registry_is_signed_in_to_once() -> None:
    places = f'{STAGE}a = "public.ecr.aws/team/a"\nmy-repo = "example.com/a"\nc = "example.com/c"\nd = "oci:out/d"\n'
    assert settings(places).publish_logins == (
        Login("aws", ECR, region="eu-west-1"),
        Login("other", "example.com", secret="LOCKYARD_MY_REPO"),
    )


@pytest.mark.parametrize(
    ("repositories", "ci", "message"),
    [
        ("", "", "no repository has stage = true"),
        (STAGE, "", "stage is the only repository"),
        (f'{STAGE}other = {{ uri = "a/b", stage = true }}\np = "a/p"\n', "", "which of stage, other"),
        (f'{STAGE}p = "a/p"\n', 'stage = "p"', "'p' is no alias of a repository with stage = true"),
        (f'{STAGE}p = "a/p"\n', 'publish = ["stage"]', "'stage' takes untested images"),
        (f'{STAGE}production = "a/p"\n', 'publish = ["produktion"]', "is no alias of a repository"),
        (f'{STAGE}p = "a/p"\n', 'branch = "a b"', "lockyard.toml:6: ci.branch"),
        (f'{STAGE}p = "a/p"\n', 'stages = "p"', "did you mean 'stage'?"),
        (f'{STAGE}p = "a/p"\n', 'runner = "a\\nb"', "ci.runner"),
    ],
)
def test_what_is_refused(repositories: str, ci: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(repositories, ci)
    assert message in caught.value.message


def test_runners() -> None:
    ci = distribution(ci='runners = { gpu = ["self-hosted", "gpu"], linux-aarch64 = "arm", "cpu/linux-64" = "big" }').ci
    assert ci.runner_for("gpu", "linux-64") == ("self-hosted", "gpu")
    assert ci.runner_for("gpu", "linux-aarch64") == ("self-hosted", "gpu")
    assert ci.runner_for("cpu", "linux-aarch64") == "arm"
    assert ci.runner_for("cpu", "linux-64") == "big"
    assert distribution().ci.runner_for("cpu", "linux-aarch64") == "ubuntu-24.04-arm"
    assert distribution(ci='runner = "mine"').ci.runner_for("cpu", "linux-aarch64") == "mine"
    lines = {"cpu": {"linux-64", "linux-aarch64"}, "gpu": {"linux-64"}}
    check_runners(ci.runners, {**lines, "gpu": {"linux-64", "linux-aarch64"}}, config="lockyard.toml")
    with pytest.raises(ConfigError, match="'gpu/linux-aarch64'"):
        check_runners({"gpu/linux-aarch64": "a"}, lines, config="lockyard.toml")
