"""`ci generate`, and what generated workflows ask: `ci matrix`, `ci pending`, `ci changed`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockyard import __version__
from lockyard.cli.options import Context, dry_run_option, json_option, pass_context, version_argument
from lockyard.version import Version, release_dir

if TYPE_CHECKING:
    from lockyard.app.ci import GenerateResult
    from lockyard.ci.generate import Target
    from lockyard.ci.settings import Login

SCHEMA = 1
_TARGETS = ("github", "codebuild")


@click.group()
def ci() -> None:
    """Write the workflows of GitHub Actions and the build specifications of AWS CodeBuild."""


@ci.command("generate")
@click.argument("targets", nargs=-1, type=click.Choice(_TARGETS), metavar="[github|codebuild]...")
@click.option("--check", is_flag=True, help="Only tell whether the files are current; exit 8 when not.")
@click.option("--force", is_flag=True, help="Replace files of the same names that were written by hand.")
@dry_run_option
@json_option
@pass_context
def generate_command(
    context: Context, *, targets: tuple["Target", ...], check: bool, force: bool, dry_run: bool, as_json: bool
) -> None:
    r"""Write workflows that make, test and publish releases by calling Lockyard.

    github: release, publish, nightly builds of what `schedule` lists, a gate for pull requests, the weekly lock refresh, and
    the site, as .github/workflows/lockyard-*.yml. codebuild: codebuild/lockyard-build.yml and lockyard-test.yml. What they
    need to know is in [tool.lockyard]: a staging repository, repositories to publish to, and a small table `ci`. The same
    configuration gives the same bytes. A file of the same name that was not generated is left alone, and nothing is written.
    Prints what was done, one file a line.

    \b
    Examples:
      lockyard ci generate github
      lockyard ci generate github codebuild --dry-run
      lockyard ci generate --check
    """
    from lockyard.app.ci import check_generated, generate

    chosen = tuple(dict.fromkeys(targets))
    if check:
        if dry_run or force:
            raise click.UsageError("--check writes nothing: give no --dry-run and no --force")
        checked = check_generated(context.workspace, chosen)
        context.toolbox.log.info(f"{len(checked)} files are current")
        if as_json:
            context.emit(json.dumps({"schema": SCHEMA, "current": list(checked)}, indent=1))
        return
    if not chosen:
        raise click.UsageError(f"for what? Give {' or '.join(_TARGETS)}, or --check")
    result = generate(context.workspace, chosen, force=force, dry_run=dry_run)
    if as_json:
        files = [{"path": item.path, "action": item.action} for item in result.changes]
        context.emit(json.dumps({"schema": SCHEMA, "written": result.written, "files": files}, indent=1))
    else:
        context.emit("\n".join(f"{_verb(item.action, done=result.written)} {item.path}" for item in result.changes))
    _tell(context, result, chosen)


@ci.command("matrix")
@version_argument
@click.option(
    "--image-refs", "refs", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, metavar="FILE",
    help="What lockyard push --image-refs wrote.",
)  # fmt: skip
@pass_context
def matrix_command(context: Context, *, version: Version, refs: Path) -> None:
    r"""Print the matrix of a job that tests what was staged: one line of JSON.

    Each entry has type, platform, image (REPOSITORY@DIGEST), runner (by [tool.lockyard.ci]) and gpu (whether the pytest-flags
    of the type hold --use-gpu).

    \b
    Examples:
      lockyard ci matrix 1.4.2 --image-refs refs.txt
    """
    from lockyard.app.ci import test_jobs

    jobs = test_jobs(context.workspace, version, refs.read_text(encoding="utf-8"), source=str(refs))
    context.emit(_one_line({"include": [job.to_json() for job in jobs]}))


@ci.command("pending")
@json_option
@pass_context
def pending_command(context: Context, *, as_json: bool) -> None:
    r"""Print the releases that are staged and tested but published nowhere: VERSION DIRECTORY, one a line.

    By images.json as it is committed. With --json it is one line, the matrix of a job.

    \b
    Examples:
      lockyard ci pending
      lockyard ci pending --json
    """
    from lockyard.app.ci import pending_releases

    _releases(context, pending_releases(context.workspace), as_json=as_json)


@ci.command("changed")
@click.argument("revision")
@json_option
@pass_context
def changed_command(context: Context, *, revision: str, as_json: bool) -> None:
    r"""Print the releases that this branch changes: VERSION DIRECTORY, one a line.

    REVISION is where it goes to, a branch of a pull request's target: what differs from where the two parted counts.

    \b
    Examples:
      lockyard ci changed origin/main
    """
    from lockyard.app.ci import changed_releases

    _releases(context, changed_releases(context.toolbox, context.workspace, revision), as_json=as_json)


def _releases(context: Context, versions: tuple[Version, ...], *, as_json: bool) -> None:
    if as_json:
        values = [{"version": str(version), "directory": str(release_dir(version))} for version in versions]
        context.emit(_one_line({"include": values}))
    elif versions:
        context.emit("\n".join(f"{version} {release_dir(version)}" for version in versions))


def _one_line(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _verb(action: str, *, done: bool) -> str:
    words = {"write": "wrote", "remove": "removed", "keep": "current"} if done else {"keep": "current"}
    return words.get(action, f"would {action}")


def _tell(context: Context, result: "GenerateResult", targets: tuple["Target", ...]) -> None:
    """Say what must be set at GitHub, once."""
    say, settings = context.toolbox.log, result.settings
    if ".dev" in __version__ and not context.workspace.distribution.ci.install:
        say.warning(
            f"the jobs install lockyard=={__version__}, which no index has: say what they install in ci.install"
        )
    if "github" not in targets:
        return
    if result.repository is not None:
        say.warning(
            f"GitHub reads workflows at the top of a repository only, and this one begins at {result.repository}"
        )
    if not any(change.is_new for change in result.changes):
        return
    say.info("set once, in the repository's settings (docs/how-to/run-in-CI.md):")
    say.info("  Actions, General: workflows may create pull requests")
    for name, logins in (("staging", settings.stage_logins), ("production", settings.publish_logins)):
        say.info(f"  environment {name}{_needs(logins)}")
    say.info("  Pages: source is GitHub Actions")


def _needs(logins: "tuple[Login, ...]") -> str:
    """Return what an environment must have."""
    parts = ["the variable LOCKYARD_AWS_ROLE"] if any(login.kind == "aws" for login in logins) else []
    parts += [
        f"the secrets {login.secret}_USER and {login.secret}_PASSWORD" for login in logins if login.kind == "other"
    ]
    return f" with {', '.join(parts)}" if parts else ""


COMMANDS = (ci,)
