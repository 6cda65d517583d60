"""The command line of buildx and what it prints: argument lists, secrets, the plain progress. No I/O here.

What a build is told is in its arguments, which anybody on the machine can read: a secret is there by name only.
`# syntax=` and attestations are never asked for: the first fetches a frontend from a public hub, the second makes an index of
what we take as one image.
"""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from lockyard.errors import ConfigError
from lockyard.ports.containers import BuildSecret, EngineBuild

SHOWN_LINES = 40
_ID_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LINE_RE = re.compile(r"#(\d+) (.*)")
_TIMED_RE = re.compile(r"\d+\.\d+ (.*)|\d+\.\d+")
_HEAD_RE = re.compile(r"\[.*\] .*|(?:exporting|importing|copy) .*")
_FROM_RE = re.compile(r"\[[^]]*\] FROM (\S+)@(sha256:[0-9a-f]{64})")
_STATES = ("DONE ", "CACHED", "CANCELED", "ERROR: ", "sha256:", "resolve ", "extracting ")


def parse_secret(text: str) -> BuildSecret:
    """Read `id=NAME,env=VARIABLE`, `id=NAME,src=FILE`, or `id=NAME` alone: the variable of that name.

    Raises:
        ConfigError: it is none of these.

    """
    parts = dict(part.partition("=")[::2] for part in text.split(","))
    name = parts.pop("id", "")
    parts.pop("type", None)
    source = parts.pop("src", None) or parts.pop("source", None)
    variable = parts.pop("env", None)
    if not _ID_RE.fullmatch(name) or parts or (source and variable):
        raise ConfigError(
            f"the build secret {text.split('=', maxsplit=1)[0]}=… is not understood", hint="--secret id=NAME,env=VARIABLE or --secret id=NAME,src=FILE"
        )  # fmt: skip
    return BuildSecret(name, source=PurePath(source)) if source else BuildSecret(name, env=variable or name)


def build_arguments(
    build: EngineBuild,
    *,
    builder: str | None,
    contexts: Mapping[str, PurePath],
    secrets: Sequence[BuildSecret],
    archive: PurePath | None,
    metadata: PurePath,
) -> tuple[str, ...]:
    """Return the arguments after `buildx`: the context comes as a tar from standard input, the image goes to `archive`.

    Without `archive` the image goes nowhere, and only its digests are told, in `metadata`.

    `contexts` are image names → OCI layouts that stand for them. New layers come uncompressed (we compress them), those
    that the builder has got from us come as they are.
    """
    options: list[str] = [
        "build",
        *(("--builder", builder) if builder else ()),
        "--progress",
        "plain",
        "--provenance=false",
    ]
    for name, layout in sorted(contexts.items()):
        options += ["--build-context", f"{name}=oci-layout://{layout}:{layout.name}"]
    for key, value in sorted(build.args.items()):
        options += ["--build-arg", f"{key}={value}"]
    for key, value in sorted(build.labels.items()):
        options += ["--label", f"{key}={value}"]
    if build.platform is not None:
        options += ["--platform", build.platform]
    if build.network is not None:
        options += ["--network", build.network]
    if build.no_cache:
        options.append("--no-cache")
    for secret in secrets:
        options += ["--secret", f"id={secret.name},{f'src={secret.source}' if secret.source else f'env={secret.env}'}"]
    if archive is None:
        output = "type=image,push=false,store=false,compression=uncompressed"
    else:
        output = f"type=docker,name={build.name},dest={archive},compression=uncompressed"
    return (*options, "--output", output, "--metadata-file", str(metadata), "--file", build.dockerfile, "-")


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed: the step as the Dockerfile has it, the builder's words, the step's last lines."""

    step: str
    text: str
    lines: tuple[str, ...]


@dataclass
class ProgressLog:
    """Reads plain progress line by line: what each step said, which one failed, what `FROM` was resolved to.

    >>> log = ProgressLog()
    >>> log.feed("#5 [2/4] RUN make")
    '#5 [2/4] RUN make'
    >>> log.feed('#5 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2')
    '#5 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2'
    >>> log.failure().step
    '[2/4] RUN make'
    """

    bases: dict[str, str] = field(default_factory=dict)
    """Reference as the builder writes it (without a digest) → digest."""
    _steps: dict[str, str] = field(default_factory=dict)
    _said: dict[str, collections.deque[str]] = field(default_factory=dict)
    _failed: tuple[str, str] | None = None
    _last: str = ""

    def feed(self, line: str) -> str | None:
        """Take a line; return what of it is worth showing, `None` for blank lines and steps that are named again."""
        plain = line.rstrip()
        if plain.startswith("ERROR: "):
            self._last = plain.removeprefix("ERROR: ")
        match = _LINE_RE.match(plain)
        if match is None:
            return plain or None
        number, text = match.groups()
        if _HEAD_RE.fullmatch(text) and number not in self._steps:
            self._steps[number] = text
            found = _FROM_RE.match(text)
            if found:
                self.bases[found[1]] = found[2]
        elif text == self._steps.get(number):
            return None
        elif text.startswith("ERROR: "):
            # The step is named beside it: not its command a second time.
            reason = text.removeprefix("ERROR: ").rpartition(" did not complete successfully: ")[2]
            self._failed = self._failed or (number, reason)
        elif text != "..." and not text.startswith(_STATES):
            timed = _TIMED_RE.fullmatch(text)
            self._said.setdefault(number, collections.deque(maxlen=SHOWN_LINES)).append(
                (timed[1] or "") if timed else text
            )
        return plain

    def failure(self) -> Failure:
        """Return what failed; without a failed step it is the client's last word."""
        if self._failed is None:
            return Failure("", self._last or "buildx gave no reason", ())
        number, text = self._failed
        return Failure(self._steps.get(number, ""), text, tuple(self._said.get(number, ())))


def redacted(line: str, secrets: Iterable[str]) -> str:
    """Return a line of a log with every secret's value as `***`."""
    for secret in secrets:
        line = line.replace(secret, "***")
    return line


def secret_values(contents: Iterable[str]) -> tuple[str, ...]:
    """Return what must not be shown of secrets: each of their lines, the longest first; three characters hide nothing."""
    lines = {line.strip() for text in contents for line in text.splitlines()}
    return tuple(sorted((line for line in lines if len(line) > 3), key=len, reverse=True))


def digest_of(reference: str, bases: Mapping[str, str]) -> str | None:
    """Return the digest that `FROM reference` was resolved to, `None` when no step began from it.

    >>> digest_of("ubuntu", {"docker.io/library/ubuntu:latest": "sha256:aa"})
    'sha256:aa'
    """
    name, at, digest = reference.partition("@")
    if at:
        return digest
    host, slash, rest = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not ("." in host or ":" in host or host == "localhost"):
        name = f"docker.io/{host}/{rest}"
    if ":" not in name.rpartition("/")[2]:
        name += ":latest"
    return bases.get(name) or bases.get(reference)
