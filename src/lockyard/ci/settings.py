"""What generated files depend on: the `ci` table of a distribution with its defaults filled in. Pure."""

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from lockyard.distribution import Distribution, Runner
from lockyard.errors import ConfigError
from lockyard.registry.places import parse_ecr
from lockyard.suggest import nearest

GITHUB_REGISTRY = "ghcr.io"
_NO_SECRET_RE = re.compile(r"[^A-Z0-9]+")


@dataclass(frozen=True, slots=True)
class Login:
    """How a job signs in to the registry of a repository.

    `aws` needs a role in a `region`, `github` the job's own token, `other` two secrets that begin with `secret`.
    """

    kind: Literal["aws", "github", "other"]
    host: str
    region: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a template may say. `install` are words for a shell, `config` is the file with our table."""

    config: str
    branch: str
    python: str
    install: str
    runner: Runner
    stage: str
    publish: tuple[str, ...]
    sign: bool
    stage_logins: tuple[Login, ...]
    publish_logins: tuple[Login, ...]


def settings_of(distribution: Distribution, *, config: str, version: str) -> Settings:
    """Return the settings; `version` is Lockyard's own, which the jobs install unless `install` says something else.

    Raises:
        ConfigError: there is no staging repository or none to publish to, or one is named that is not configured.

    """
    stage = _stage(distribution, config)
    publish = _publish(distribution, config, stage)
    install = distribution.ci.install or (f"lockyard=={version}",)
    return Settings(
        config=config,
        branch=distribution.ci.branch,
        python=distribution.ci.python,
        install=shlex.join(install),
        runner=distribution.ci.runner,
        stage=shlex.quote(stage),
        publish=tuple(map(shlex.quote, publish)),
        sign=distribution.ci.sign,
        stage_logins=_logins(distribution, (stage,)),
        publish_logins=_logins(distribution, (stage, *publish)),
    )


def check_runners(runners: Mapping[str, Runner], lines: Mapping[str, Collection[str]], *, config: str) -> None:
    """Refuse a key of `ci.runners` that is no image type, platform or `TYPE/PLATFORM`; `lines` is type → platforms.

    Raises:
        ConfigError: there is one; the nearest valid key is named.

    """
    platforms = {name for names in lines.values() for name in names}
    known = [*lines, *sorted(platforms), *(f"{name}/{one}" for name, names in lines.items() for one in sorted(names))]
    for key in runners:
        if key not in known:
            raise ConfigError(
                f"{config}: ci.runners: no line has an image type or platform {key!r}",
                hint=nearest(key, known) or f"write one of {', '.join(known[:6])}",
            )


def _stage(distribution: Distribution, config: str) -> str:
    """Return the alias of the staging repository: the one that `ci.stage` names, else the only one there is."""
    stages = [name for name in distribution.repositories if distribution.repository(name).stage]
    chosen = distribution.ci.stage
    if chosen and chosen not in stages:
        guess = nearest(chosen, stages)
        raise ConfigError(f"{config}: ci.stage: {chosen!r} is no alias of a repository with stage = true", hint=guess)
    if chosen or len(stages) == 1:
        return chosen or stages[0]
    if stages:
        raise ConfigError(
            f"{config}: which of {', '.join(stages)} takes what is not tested yet?",
            hint=f'set ci.stage = "{stages[0]}"',
        )
    raise ConfigError(
        f"{config}: no repository has stage = true; the jobs of a release meet in one",
        hint=f'add one: {_table(config)} stage = {{ uri = "HOST/NAME", stage = true }}',
    )


def _publish(distribution: Distribution, config: str, stage: str) -> tuple[str, ...]:
    """Return the aliases to publish to: those that `ci.publish` names, else all that are no staging repositories."""
    finals = [name for name in distribution.repositories if not distribution.repository(name).stage]
    for name in distribution.ci.publish:
        if name not in finals:
            why = "takes untested images" if name in distribution.repositories else "is no alias of a repository"
            raise ConfigError(f"{config}: ci.publish: {name!r} {why}", hint=nearest(name, finals))
    if not finals:
        raise ConfigError(
            f"{config}: {stage} is the only repository: there is none to publish to",
            hint=f'add one: {_table(config)} production = "HOST/NAME"',
        )
    return distribution.ci.publish or tuple(finals)


def _table(config: str) -> str:
    return "[tool.lockyard.repositories]" if config.endswith("pyproject.toml") else "[repositories]"


def _logins(distribution: Distribution, aliases: tuple[str, ...]) -> tuple[Login, ...]:
    """Return how to sign in to the registries of these repositories, each once; AWS once, whatever the accounts are."""
    found: dict[str, Login] = {}
    for alias in aliases:
        uri = distribution.repository(alias).uri
        place = parse_ecr(uri)
        host = uri.partition("/")[0]
        if place is not None:
            found.setdefault("aws", Login("aws", host, region=place.region))
        elif host == GITHUB_REGISTRY:
            found.setdefault(host, Login("github", host))
        elif not uri.startswith("oci:"):
            secret = _NO_SECRET_RE.sub("_", alias.upper()).strip("_")
            found.setdefault(host, Login("other", host, secret=f"LOCKYARD_{secret}"))
    return tuple(found.values())
