"""Options that commands share, and the context that they get."""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lockyard.cli.output import ConsoleLog
from lockyard.ports import Toolbox
from lockyard.version import Version

if TYPE_CHECKING:
    from lockyard.app.workspace import Workspace
    from lockyard.pyrelease.project import Project

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Context:
    """What a command works with: the toolbox, the distribution (opened at first use), the two outputs."""

    toolbox: Toolbox
    log: ConsoleLog
    root: Path | None

    @functools.cached_property
    def workspace(self) -> "Workspace":
        """The distribution around the current directory or `--root`.

        Raises:
            ConfigError: there is none or its configuration is wrong.

        """
        from lockyard import fs
        from lockyard.app.workspace import find_root, open_workspace

        workspace = open_workspace(self.root.resolve() if self.root else find_root(Path.cwd()))
        if fs.leftovers(workspace.root):
            # Another command may be in the middle of a write: what lies about now is gone when it ends.
            with workspace.lock(patience=10.0, tell=self.toolbox.log.info):
                for line in fs.restore_leftovers(workspace.root):
                    self.toolbox.log.warning(line)
        return workspace

    @functools.cached_property
    def project(self) -> "Project":
        """The Python project around the current directory or at `--root`.

        Raises:
            ConfigError: there is none or its configuration is wrong.

        """
        from lockyard.app.package import find_project_root, open_project, project_lock
        from lockyard.pyrelease.files import is_unfinished, restore_unfinished

        root = self.root.resolve() if self.root else find_project_root(Path.cwd())
        if is_unfinished(root):
            with project_lock(root, patience=10.0, tell=self.toolbox.log.info):
                for line in restore_unfinished(root):
                    self.toolbox.log.warning(line)
        return open_project(root)

    @property
    def console(self) -> Any:
        """The rich console on stderr, for tables."""
        return self.log.console

    @staticmethod
    def emit(text: str) -> None:
        """Write an answer to stdout, with a final newline."""
        sys.stdout.write(text if text.endswith("\n") else text + "\n")


pass_context = click.make_pass_decorator(Context)


class VersionType(click.ParamType[Version, str]):
    """A release version; a malformed one is a usage error that suggests the nearest."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Version:  # noqa: ARG002 - the signature of click
        """Parse the text."""
        return value if isinstance(value, Version) else Version.parse(value)


VERSION = VersionType()


def version_argument(function: F) -> F:
    """Give the command `version`, positional or by `--target-patch-version`."""

    @functools.wraps(function)
    def wrapper(*args: Any, version: Version | None, **kwargs: Any) -> Any:
        if version is None:
            raise click.UsageError("which release? Give VERSION or --target-patch-version V")
        return function(*args, version=version, **kwargs)

    return optional_version_argument(wrapper)  # type: ignore[return-value]  # click's decorators keep the callable


def optional_version_argument(function: F) -> F:
    """Give the command `version` as `version_argument` does; `None` when there is none."""

    @functools.wraps(function)
    def wrapper(*args: Any, version: Version | None, target_patch_version: Version | None, **kwargs: Any) -> Any:
        if version and target_patch_version and version != target_patch_version:
            raise click.UsageError(f"two versions are given: {version} and {target_patch_version}")
        return function(*args, version=version or target_patch_version, **kwargs)

    option = click.option(
        "--target-patch-version", type=VERSION, metavar="V", help="The release, the same as the argument."
    )
    return click.argument("version", type=VERSION, required=False, metavar="[VERSION]")(option(wrapper))  # type: ignore[return-value]  # click's decorators keep the callable


def versions_argument(function: F) -> F:
    """Give the command `versions`, positional or by `--target-patch-version`, each once; there may be none."""

    @functools.wraps(function)
    def wrapper(
        *args: Any, versions: tuple[Version, ...], target_patch_versions: tuple[Version, ...], **kwargs: Any
    ) -> Any:
        return function(*args, versions=tuple(dict.fromkeys((*versions, *target_patch_versions))), **kwargs)

    option = click.option(
        "--target-patch-version", "target_patch_versions", type=VERSION, multiple=True, metavar="V",
        help="A release, the same as the argument.",
    )  # fmt: skip
    return click.argument("versions", type=VERSION, nargs=-1, metavar="[VERSION]...")(option(wrapper))  # type: ignore[return-value]  # click's decorators keep the callable


def one_or_more(versions: tuple[Version, ...]) -> tuple[Version, ...]:
    """Refuse a command line that names no release."""
    if not versions:
        raise click.UsageError("which release? Give VERSION or --target-patch-version V")
    return versions


def image_type_option(function: F) -> F:
    """Give the command `image_types`."""
    return click.option(
        "--image-type", "image_types", multiple=True, metavar="T", help="Only this image type (repeatable)."
    )(function)


def json_option(function: F) -> F:
    """Give the command `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")(function)


def dry_run_option(function: F) -> F:
    """Give the command `dry_run`."""
    return click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")(function)


def region_option(function: F) -> F:
    """Give the command `region`."""
    return click.option("--region", metavar="R", help="The AWS region of ECR repositories [default: their own].")(
        function
    )


def index_option(function: F) -> F:
    """Give the command `index_url`."""
    return click.option(
        "--index-url", metavar="URL",
        help="The package index that dependencies come from, its simple API [default: uv's own settings].",
    )(function)  # fmt: skip
