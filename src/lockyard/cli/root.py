"""The root command: global options, groups of commands, exit codes. `main` exits with them, commands only raise."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockyard import __version__
from lockyard.cli.options import Context
from lockyard.cli.output import ConsoleLog
from lockyard.errors import ConfigError, LockyardError
from lockyard.ports import Log, Toolbox

if TYPE_CHECKING:
    from lockyard.cli.output import Color, LogFormat
    from lockyard.conda.solve import RattlerSolver
    from lockyard.oci.image import Image
    from lockyard.oci.values import Digest
    from lockyard.ports.containers import Builder, BuildSecret, Containers, Daemon, Runner
    from lockyard.ports.registry import RegistryPort
    from lockyard.ports.solving import PackageSource
    from lockyard.registry.credentials import DockerCredentials
    from lockyard.registry.ecr import EcrAccess
    from lockyard.registry.places import EcrPlace
    from lockyard.registry.transport import CredentialSource

INTERRUPTED = 130
UNEXPECTED = 1

SECTIONS: dict[str, dict[str, str]] = {
    "Begin": {"init": "init", "adopt": "adopt"},
    "Create": {
        "create-patch-version-artifacts": "create",
        "create-minor-version-artifacts": "create",
        "create-major-version-artifacts": "create",
    },
    "Lock": {"lock": "lock"},
    "Build and test": {
        "build": "build",
        "test": "imagetests",
        "run": "build",
        "layers": "layers",
        "pin-bases": "bases",
        "build-base": "bases",
    },
    "Publish": {"push": "publish", "promote": "publish", "repositories": "repositories"},
    "Understand": {
        "diff": "reports",
        "why": "reports",
        "generate-changelog": "texts",
        "generate-release-notes": "texts",
        "generate-version-release-note": "texts",
        "generate-size-report": "reports",
        "generate-staleness-report": "reports",
        "generate-dependency-report": "reports",
        "support": "reports",
        "scan": "scan",
        "generate-sbom": "sbom",
        "site": "site",
    },
    "Automate": {"schedule": "schedule", "ci": "ci"},
    "Package": {"package": "package", "runtimes": "runtimes"},
    "Machinery": {"cache": "cache", "completion": "completion"},
}
"""Section → command → module of `lockyard.cli` whose `COMMANDS` holds it."""

_MODULES = {name: module for commands in SECTIONS.values() for name, module in commands.items()}


class SystemClock:
    """The `Clock` port."""

    @staticmethod
    def now() -> dt.datetime:
        """Return the time now, UTC."""
        return dt.datetime.now(dt.UTC)


def make_toolbox(log: Log, environ: Mapping[str, str]) -> Toolbox:
    """Build the real toolbox; nothing heavy is loaded before it is used."""
    cache = cache_dir(environ)

    def solver() -> RattlerSolver:
        from lockyard.conda.solve import RattlerSolver

        return RattlerSolver(cache_dir=cache, log=log)

    def packages() -> PackageSource:
        from lockyard.conda.fetch import PackageCache

        return PackageCache(cache_dir=cache, log=log)

    def sandbox(layout: Path) -> AbstractContextManager[Runner]:
        from lockyard.engines.sandbox import open_sandbox

        return open_sandbox(layout, cache_dir=cache, log=log)

    def base_sandbox(image: Image, blobs: Mapping[Digest, Path]) -> AbstractContextManager[Runner]:
        from lockyard.engines.sandbox import open_image

        return open_image(image, blobs, cache_dir=cache, log=log)

    registry = RegistryOpener(log, environ)

    def containers() -> Containers:
        from lockyard.engines.daemon import open_containers

        return open_containers(environ, log)

    def buildkit(builder: str | None, secrets: Sequence[BuildSecret]) -> Builder:
        from lockyard.engines.buildkit import open_buildkit
        from lockyard.oci.layout import write_layout

        return open_buildkit(environ, cache, log, write_layout, builder=builder, secrets=secrets)

    def daemon() -> Daemon | None:
        from lockyard.engines.daemon import open_daemon

        return open_daemon(environ, log)

    return Toolbox(
        log=log,
        clock=SystemClock(),
        environ=environ,
        cache_dir=cache,
        solver=solver,
        packages=packages,
        index=solver,
        scans=lambda: registry,
        sandbox=sandbox,
        base_sandbox=base_sandbox,
        registry=registry,
        ecr=registry.ecr,
        daemon=daemon,
        containers=containers,
        buildkit=buildkit,
    )


class RegistryOpener:
    """The `RegistryFactory` port: repositories of one registry share connections, login and quotas."""

    def __init__(self, log: Log, environ: Mapping[str, str]) -> None:
        self._log = log
        self._environ = environ
        self._shared: dict[str, Any] = {}

    def __call__(self, target: str, *, insecure: bool = False, pull_only: bool = False) -> RegistryPort:
        """Open `HOST/NAME` or `oci:DIR`."""
        if target.startswith("oci:"):
            from lockyard.registry.directory import OciDirectory

            return OciDirectory(Path(target.removeprefix("oci:")))
        from lockyard.registry.client import RegistryClient
        from lockyard.registry.places import parse_ecr
        from lockyard.registry.transport import TransportPool

        place = parse_ecr(target)
        if place is None or (place.is_public and pull_only):  # everybody may pull from ECR Public
            credentials: CredentialSource = self._docker()
        else:
            credentials = self.ecr(place)
        pool = self._shared.setdefault(f"pool {type(credentials).__name__}", TransportPool())
        return RegistryClient(target, credentials, insecure=insecure, pull_only=pull_only, log=self._log, pool=pool)

    def ecr(self, place: EcrPlace) -> EcrAccess:
        """Return what opens the registry of `place`; the same for all its repositories."""
        if place.host not in self._shared:
            from lockyard.registry.ecr import EcrAccess

            self._shared[place.host] = EcrAccess(place, now=SystemClock().now)
        access: EcrAccess = self._shared[place.host]
        return access

    def scan_findings(self, repository: str, tag: str, *, region: str | None = None) -> bytes | None:
        """Return what Amazon ECR's own scan of an image found (the `ScanSource` port)."""
        from lockyard.registry.places import in_region, parse_ecr

        place = parse_ecr(in_region(repository, region) if region else repository)
        if place is None or place.is_public:
            raise ConfigError(
                f"{repository} is no private repository of Amazon ECR: only these scan by themselves",
                hint="give a scanner's report: --report TYPE=FILE",
            )
        return self.ecr(place).scan_findings(place, tag)

    def _docker(self) -> DockerCredentials:
        from lockyard.registry.credentials import DockerCredentials

        found: DockerCredentials = self._shared.setdefault("docker", DockerCredentials(self._environ))
        return found


def process_toolbox() -> Toolbox:
    """Build the toolbox of this process, with a quiet log: for programs that are not the command line."""
    return make_toolbox(ConsoleLog(verbosity=-1), dict(os.environ))


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Return the cache directory: `LOCKYARD_CACHE_DIR`, else the platform's."""
    if environ.get("LOCKYARD_CACHE_DIR"):
        return Path(environ["LOCKYARD_CACHE_DIR"]).absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("lockyard", appauthor=False))


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for, and lists commands by section."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return [*_MODULES, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command."""
        if cmd_name not in _MODULES:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"lockyard.cli.{_MODULES[cmd_name]}")
        commands: tuple[click.Command, ...] = module.COMMANDS
        return _readable(next(command for command in commands if command.name == cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command for a typo."""
        from lockyard.suggest import nearest

        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            guess = nearest(name, self.list_commands(ctx)) or "see lockyard --help"
            raise click.UsageError(f"no command {name!r}; {guess}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section."""
        for section, names in SECTIONS.items():
            with formatter.section(section):
                commands = ((name, self.get_command(ctx, name)) for name in names)
                formatter.write_dl([(name, command.get_short_help_str()) for name, command in commands if command])


def _readable(command: click.Command) -> click.Command:
    """Make click's mark for a block that stays as it is from the two characters that a raw docstring has.

    Lists of commands show the whole first sentence of each: click would end it in the middle.
    """
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    command.short_help = command.short_help or command.get_short_help_str(limit=1000)
    for child in command.commands.values() if isinstance(command, click.Group) else ():
        _readable(child)
    return command


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 120,
        "auto_envvar_prefix": "LOCKYARD",
    },
)
@click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False, exists=True), envvar="LOCKYARD_ROOT",
    help="The distribution [default: the nearest parent that is one].",
)  # fmt: skip
@click.option("-v", "--verbose", count=True, help="Say more; -vv shows tracebacks.")
@click.option("-q", "--quiet", is_flag=True, help="Say only warnings and errors.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", help="How the story on stderr is written."
)
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour on stderr.")
@click.version_option(__version__, prog_name="lockyard")
@click.pass_context
def root_command(
    ctx: click.Context, root: Path | None, verbose: int, quiet: bool, log_format: LogFormat, color: Color
) -> None:
    r"""Make the next version of your container images from the last one, and trust it.

    The lock comes first, the layers follow the packages, and only a tested digest is published.

    \b
    Examples:
      lockyard create-patch-version-artifacts --base-patch-version 1.4.1
      lockyard lock 1.4.2
      lockyard diff 1.4.1 1.4.2
      lockyard build 1.4.2 --target-ecr-repo registry.example.com/team/image
    """
    start = ctx.obj
    if color == "auto" and start.environ.get("FORCE_COLOR"):
        color = "always"
    log = ConsoleLog(verbosity=-1 if quiet else verbose, log_format=log_format, color=color)
    start.log = log
    ctx.obj = Context(start.make_toolbox(log, start.environ), log, root)


_readable(root_command)


class Start:
    """What `run` hands to the root command: how to make a toolbox, the environment, the log once it is known."""

    def __init__(self, make: Callable[[Log, Mapping[str, str]], Toolbox], environ: Mapping[str, str]) -> None:
        self.make_toolbox = make
        self.environ = environ
        self.log: ConsoleLog | None = None


def run(
    args: Sequence[str],
    *,
    environ: Mapping[str, str],
    make: Callable[[Log, Mapping[str, str]], Toolbox] = make_toolbox,
) -> int:
    """Run one command and return its exit code; tests give a toolbox of their own."""
    start = Start(make, environ)
    code = UNEXPECTED
    with _failures(start, verbose=_is_very_verbose(args)) as outcome:
        value: Any = root_command.main(list(args), prog_name="lockyard", standalone_mode=False, obj=start)
        code = value if isinstance(value, int) else 0
        outcome.append(code)
    return outcome[-1]


def main() -> int:
    """Run the command line of this process and return its exit code."""
    # Loading modules makes much and drops little: collecting garbage at every 700 objects costs 6 % of `create`.
    gc.set_threshold(50_000)
    environ = dict(os.environ)
    # Plugins of whatever else is installed have no business here, and looking for them takes time.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # CI systems and `docker stop` end a job so: what is under way is ended and removed as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run(sys.argv[1:], environ=environ)


@contextlib.contextmanager
def _failures(start: Start, *, verbose: bool) -> Iterator[list[int]]:
    """Turn every failure into one message and an exit code, appended to the yielded list."""
    outcome: list[int] = []
    try:
        yield outcome
    except click.ClickException as error:
        error.show()
        outcome.append(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _log(start).interrupted()
        outcome.append(INTERRUPTED)
    except LockyardError as error:
        _log(start).error(error)
        outcome.append(error.exit_code)
        if verbose:
            traceback.print_exc()
    except BrokenPipeError:
        # The reader of stdout has gone (`| head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        outcome.append(UNEXPECTED)
    except Exception as error:  # noqa: BLE001 - the last line of defence: one message, no traceback without -vv
        text = f"{type(error).__name__}: {error}"
        _log(start).error(LockyardError(text, hint="run it again with -vv and report the traceback"))
        outcome.append(UNEXPECTED)
        if verbose:
            traceback.print_exc()


def _log(start: Start) -> ConsoleLog:
    return start.log or ConsoleLog()


def _is_very_verbose(args: Sequence[str]) -> bool:
    return sum(arg.count("v") if arg.startswith("-v") else arg == "--verbose" for arg in args) >= 2
