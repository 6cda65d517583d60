"""Spec files (`env.in` and its kin): which packages are wanted, read with line numbers and written in one form.

A line is a conda match spec (conda CEP 29: `channel/subdir::name`, then `[key='value',…]`, `=1.2` or `>=1,<2`) or, as in
an `@EXPLICIT` list, the address of a package. What a spec means is rattler's to say; here it is taken apart and checked.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rattler import MatchSpec

from lockyard.conda.channels import parse_channel, parse_package_url, redact
from lockyard.errors import ConfigError
from lockyard.suggest import nearest

HEADER = "# This file is auto-generated."
EXPLICIT = "@EXPLICIT"

_NAME_RE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_VALUE_RE = re.compile(r"[A-Za-z0-9_.+!~*<>=,|^$()-]+")
_PLAIN_VERSION_RE = re.compile(r"[A-Za-z0-9_.+!]+")
_SUBDIR_RE = re.compile(r"noarch|(?:linux|osx|win|freebsd|emscripten|wasi|zos)-[a-z0-9_]+")
_HASH_RES = {"md5": re.compile(r"[0-9a-f]{32}"), "sha256": re.compile(r"[0-9a-f]{64}")}
_SPEC_RE = re.compile(
    r"(?:(?P<channel>[^\s\[\]]+)::)?(?P<name>[^\s\[\]=<>!~|,:]+)(?P<short>[^\[\]]*)(?:\[(?P<long>.*)\])?"
)
_PAIR_RE = re.compile(
    r"\s*(?P<key>[A-Za-z_0-9]+)\s*=\s*(?:'(?P<one>[^']*)'|\"(?P<two>[^\"]*)\"|(?P<bare>[^\s'\",\]]+))\s*(?:,|$)"
)
_TYPO_RE = re.compile(r"([\[,]\s*(?:version|build|build_number|channel|subdir))(?=['\"])")
VARIABLE_RE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
"""`$NAME` or `${NAME}`: the name is in the first group or in the second."""
_CONTROL_RE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ADDRESS_RE = re.compile(r"(?:https?|file):[^\s\[\]]*\.(?:conda|tar\.bz2)(?:#\S*)?")
_KEYS = ("version", "build", "build_number", "channel", "subdir", "md5", "sha256")
_MAX_LENGTH = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One wanted package; `url` is set for a line of an explicit list.

    `version`, `build` and `build_number` are constraints as a match spec has them between brackets; `name` is
    lower case. Values that could break out of a line, a path or an argument list are refused at birth.

    Raises:
        ConfigError: a field is malformed.

    """

    name: str
    channel: str | None = None
    subdir: str | None = None
    version: str | None = None
    build: str | None = None
    build_number: str | None = None
    md5: str | None = None
    sha256: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.channel is not None:
            parse_channel(self.channel, source=self.name)
        if self.subdir is not None and not _SUBDIR_RE.fullmatch(self.subdir):
            raise ConfigError(f"{self.subdir!r} is not a conda subdir such as linux-64")
        for key in ("version", "build", "build_number"):
            value = getattr(self, key)
            if value is not None and not _VALUE_RE.fullmatch(value):
                raise ConfigError(f"{value!r} is not a {key.replace('_', ' ')} constraint")
        for key, pattern in _HASH_RES.items():
            value = getattr(self, key)
            if value is not None and not pattern.fullmatch(value):
                raise ConfigError(f"{value!r} is not the {key} of a package")

    @property
    def is_bounded(self) -> bool:
        """Whether anything but the name and the channel is asked."""
        return bool(self.version or self.build or self.build_number or self.md5 or self.sha256 or self.url)

    @property
    def constraint(self) -> str:
        """The version, build and build number asked, for people; empty when there is none."""
        number = f"build number {self.build_number}" if self.build_number else None
        return " ".join(filter(None, (self.version, self.build, number)))

    def __str__(self) -> str:
        """Return the line of a spec file."""
        if self.url is not None:
            digest = self.md5 or self.sha256
            return f"{self.url}#{digest}" if digest else self.url
        place = f"{self.channel}/{self.subdir}::" if self.channel and self.subdir else ""
        place = place or (f"{self.channel}::" if self.channel else "")
        pairs = [(key, getattr(self, key)) for key in ("version", "build", "build_number", "md5", "sha256")]
        if self.subdir and not self.channel:
            pairs.append(("subdir", self.subdir))
        inner = ",".join(f"{key}='{value}'" for key, value in pairs if value is not None)
        return f"{place}{self.name}[{inner}]" if inner else f"{place}{self.name}"


@dataclass(frozen=True, slots=True)
class SpecLine:
    """A spec and where it stands; `text` is the line as written, arguments substituted.

    `number` starts at 1, and is 0 for a spec of the configuration, whose key `source` names.
    """

    spec: Spec
    source: str
    number: int
    text: str

    @property
    def where(self) -> str:
        """`file:line`, or `file: key`."""
        return f"{self.source}:{self.number}" if self.number else self.source


@dataclass(frozen=True, slots=True)
class EnvIn:
    """A spec file; `warnings` name the lines that were read as meant, not as written."""

    source: str
    lines: tuple[SpecLine, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def specs(self) -> tuple[Spec, ...]:
        """The specs in file order."""
        return tuple(line.spec for line in self.lines)

    @property
    def by_name(self) -> dict[str, SpecLine]:
        """The first line of each name, in file order."""
        found: dict[str, SpecLine] = {}
        for line in self.lines:
            found.setdefault(line.spec.name, line)
        return found

    @property
    def is_explicit(self) -> bool:
        """Whether it lists addresses of packages."""
        return any(line.spec.url is not None for line in self.lines)


def check_name(name: str) -> str:
    """Return `name` when it is a conda package name in lower case (conda CEP 26), safe in paths and arguments.

    Raises:
        ConfigError: it is not.

    """
    if not _NAME_RE.fullmatch(name) or name != name.lower() or len(name) > 200:
        raise ConfigError(f"{name[:100]!r} is not a package name")
    return name


def parse_env_in(text: str, *, source: str, variables: Mapping[str, str] | None = None) -> EnvIn:
    """Parse a spec file; `source` is its path, for messages.

    `variables` are the arguments of an arg-based file (`$NAME`, `${NAME}`), `None` for every other file.

    Raises:
        ConfigError: a line does not parse or names an unknown variable; every such line is in the details.

    """
    lines: list[SpecLine] = []
    warnings: list[str] = []
    problems: list[ConfigError] = []
    for number, raw in _significant(text):
        where = f"{source}:{number}"
        try:
            line = substitute(raw, variables, where=where)
            fixed = _TYPO_RE.sub(r"\1=", line)
            if fixed != line:
                warnings.append(f"{where}: {line!r} lacks a '='; read as {fixed!r}")
            lines.append(SpecLine(_parse_line(fixed, where), source, number, line))
        except ConfigError as error:
            problems.append(error)
    if problems:
        first, *rest = problems
        raise ConfigError(first.message, hint=first.hint, details=[error.message for error in rest])
    return EnvIn(source, tuple(lines), tuple(warnings))


def parse_spec(text: str, *, source: str) -> Spec:
    """Parse one match spec that stands outside of a spec file, such as a key of the configuration.

    Raises:
        ConfigError: it does not parse; the message begins with `source`.

    """
    return _parse_line(text.strip(), source)


def format_env_in(specs: Iterable[Spec]) -> str:
    """Write a generated spec file: the header, one spec a line, a final newline."""
    return "".join(f"{line}\n" for line in (HEADER, *map(str, specs)))


def substitute(text: str, variables: Mapping[str, str] | None, *, where: str) -> str:
    """Replace `$NAME` and `${NAME}` in one line; without `variables` a line must have none.

    Raises:
        ConfigError: a variable is unknown or empty, or its value could break out of the line.

    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if variables is None:
            raise ConfigError(
                f"{where}: ${name} stands in a file whose arguments are not substituted",
                hint="put the line into {type}.arg_based_env.in",
            )
        if name not in variables:
            hint = nearest(name, dict(variables)) or "declare it under args of the variant in variants.toml"
            raise ConfigError(f"{where}: ${name} is not an argument of this image type", hint=hint)
        if not _VALUE_RE.fullmatch(variables[name]):
            raise ConfigError(f"{where}: the argument {name} is {variables[name]!r}, which cannot stand in a spec")
        return variables[name]

    return VARIABLE_RE.sub(value, text) if "$" in text and not text.startswith("#") else text


def _significant(text: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that hold a spec. A comment starts a line or follows white space."""
    # Not splitlines(): it also splits at form feeds and Unicode separators, which must be refused, not hidden.
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = raw.removesuffix("\r")
        line = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip(" \t")
        if line and line != EXPLICIT:
            yield number, line


def _parse_line(line: str, where: str) -> Spec:
    try:
        if len(line) > _MAX_LENGTH or _CONTROL_RE.search(line) or not line.isascii():
            raise ConfigError("it holds a character that a spec cannot have")  # noqa: TRY301 - one place adds the line
        spec = _parse_address(line) if _ADDRESS_RE.fullmatch(line) else _parse_spec(line)
        # The constraints' grammar is rattler's; an address says exactly one package and has none.
        if spec.url is None:
            MatchSpec(str(spec))
    except Exception as error:
        if not isinstance(error, ConfigError) and type(error).__module__ != "exceptions":
            raise
        reason = error.message if isinstance(error, ConfigError) else str(error).splitlines()[0]
        raise ConfigError(
            f"{where}: {redact(line[:200])!r} does not parse: {reason}",
            hint="write NAME, CHANNEL::NAME or CHANNEL::NAME[version='>=1.2,<2']",
        ) from error
    return spec


def _parse_address(line: str) -> Spec:
    url, _, digest = line.partition("#")
    digest = digest.lower().removeprefix("sha256:").removeprefix("md5:")
    address = parse_package_url(url, source=url)
    kind = "sha256" if len(digest) == 64 else "md5"
    return Spec(
        name=address.name.lower(),
        channel=address.channel,
        subdir=address.subdir,
        version=f"=={address.version}",
        build=address.build,
        url=url,
        **{kind: digest or None},
    )


def _parse_spec(line: str) -> Spec:
    match = _SPEC_RE.fullmatch(line)
    if match is None:
        raise ConfigError("it is not a match spec")
    given = _short_form(match["short"])
    long = _brackets(match["long"]) if match["long"] is not None else {}
    channel, subdir = _split_channel(match["channel"])
    given |= {key: value for key, value in (("channel", channel), ("subdir", subdir)) if value is not None}
    twice = sorted(given.keys() & long.keys())
    if twice:
        raise ConfigError(f"it gives the {twice[0]} twice")
    return Spec(name=match["name"].lower(), **given, **long)


def _split_channel(text: str | None) -> tuple[str | None, str | None]:
    """Split `conda-forge/linux-64` at a subdir."""
    if text is None:
        return None, None
    head, slash, tail = text.rpartition("/")
    return (head, tail) if slash and _SUBDIR_RE.fullmatch(tail) else (text, None)


def _short_form(text: str) -> dict[str, str]:
    """Read what stands between name and bracket: `=1.2`, `==1.2`, `=1.2=build`, `>=1,<2`, ` 1.2 build`."""
    text = re.sub(r"\s*([,|<>=!~]+)\s*", r"\1", text) if text.strip()[:1] != "=" else text.strip()
    words = text.split()
    if len(words) > 2:
        raise ConfigError("it has more than a version and a build")
    if not words:
        return {}
    version, build = words[0], words[1] if len(words) == 2 else None
    if version.startswith("="):
        exact = version.startswith("==")
        version, equals, tail = version.lstrip("=").partition("=")
        if equals:
            if build is not None or not tail:
                raise ConfigError("it has more than a version and a build")
            build, exact = tail, True
        if _PLAIN_VERSION_RE.fullmatch(version):
            version = f"=={version}" if exact else f"{version}.*"
        elif not version or version[0] in "<>!~|,":
            raise ConfigError("it is not a match spec")
        else:
            # `=1.2,<2` or `=1.*`: as between brackets.
            version = f"{'==' if exact else '='}{version}"
    return {"version": version} | ({"build": build} if build is not None else {})


def _brackets(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PAIR_RE.match(text, position)
        if match is None:
            raise ConfigError(f"{text[position : position + 60]!r} is not KEY='VALUE'")
        key = match["key"]
        if key not in _KEYS:
            raise ConfigError(f"{key!r} is not a key that Lockyard reads ({', '.join(_KEYS)})")
        if key in found:
            raise ConfigError(f"it gives the {key} twice")
        value = next(part for part in (match["one"], match["two"], match["bare"]) if part is not None)
        found[key] = re.sub(r"\s*([,|<>=!~]+)\s*", r"\1", value.strip()) if key == "version" else value
        position = match.end()
    return found
