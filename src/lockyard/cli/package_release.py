"""`package release`."""

import json
from typing import TYPE_CHECKING

import click

from lockyard.cli.options import Context, dry_run_option, index_option, json_option, pass_context
from lockyard.cli.package_version import IDENTIFIERS, edit_lines

if TYPE_CHECKING:
    from lockyard.app.packagerelease import ReleaseRequest
    from lockyard.pyrelease.bump import Identifier, Part
    from lockyard.pyrelease.plan import Journal, Kind, ReleasePlan


@click.command()
@click.argument("kind", type=click.Choice(["pre", "final"]))
@click.option("--bump", "part", type=click.Choice(["patch", "minor", "major"]), help="Which release is next.")
@click.option(
    "--identifier", type=click.Choice(IDENTIFIERS), help="The kind of pre-release [default: the current, else a]."
)
@click.option("--publish", is_flag=True, help="Push to git, the package index and the image repositories as well.")
@click.option(
    "--repository", metavar="URL|NAME", help="The package index, or none [default: index of the configuration]."
)
@click.option("--target-ecr-repo", "targets", multiple=True, metavar="R", help="Publish the images there (repeatable).")
@click.option("--no-images", is_flag=True, help="Generate, build and publish no images.")
@click.option("--resume", is_flag=True, help="Go on with the last release: after a failure, or now with --publish.")
@click.option("--abandon", is_flag=True, help="Forget a release that was interrupted; its files get their old content.")
@click.option("--no-isolation", is_flag=True, help="Build with the backend that is installed here.")
@index_option
@dry_run_option
@json_option
@pass_context
def release(
    context: Context,
    *,
    kind: "Kind",
    part: "Part | None",
    identifier: "Identifier | None",
    publish: bool,
    repository: str | None,
    targets: tuple[str, ...],
    no_images: bool,
    resume: bool,
    abandon: bool,
    no_isolation: bool,
    index_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    r"""Make a release: a pre-release, or a final one with its own branch.

    The plan is printed, then run step by step: checks, bump, lock, build, Dockerfiles, changelog, (final: branch,) commit, tag,
    (final: the next development version,) distributions, images, and with --publish git, package index, image repositories. Nothing
    leaves the machine without --publish. Each finished step is noted in .lockyard/release.json: after a failure the same command
    goes on. A version that no tag names yet is released as it is. Prints the tag, then what was made.

    \b
    Examples:
      lockyard package release pre --bump minor --identifier a --dry-run
      lockyard package release pre                        # the next pre-release
      lockyard package release final
      lockyard package release final --resume --publish   # what was made above, after a look
      lockyard package release final --bump patch         # on the branch of a final release
    """
    from lockyard.app.packagebuild import BuildOptions
    from lockyard.app.packagelock import LockOptions
    from lockyard.app.packagerelease import ReleaseRequest, abandon_release, open_release, run_release
    from lockyard.app.releasesteps import StepOptions
    from lockyard.pyrelease.plan import Journal

    root = context.project.root
    if abandon:
        _tell_abandoned(context, abandon_release(context.toolbox, root))
        return
    steps = StepOptions(
        build=BuildOptions(isolated=not no_isolation, index_url=index_url), lock=LockOptions(index_url=index_url)
    )
    request = ReleaseRequest(
        kind=kind, part=part, identifier=identifier, publish=publish, index=repository, image_targets=targets,
        images=not no_images,
    )  # fmt: skip
    journal = open_release(root, request, resume=resume)
    if journal is None:
        journal = Journal(_new_plan(context, request))
    else:
        context.toolbox.log.info(f"going on with {journal.plan.new}: {len(journal.done)} steps are done")
    _print_plan(context, journal)
    if not dry_run:
        journal = run_release(context.toolbox, root, journal, steps)
        _tell_next(context, journal)
    _answer(context, journal, dry_run=dry_run, as_json=as_json)


def _new_plan(context: Context, request: "ReleaseRequest") -> "ReleasePlan":
    from lockyard.app.packagerelease import plan_release

    planned = plan_release(context.toolbox, context.project, request)
    for line in edit_lines(planned.bump):
        context.toolbox.log.info(line)
    return planned.plan


def _print_plan(context: Context, journal: "Journal") -> None:
    plan = journal.plan
    say = context.toolbox.log
    say.step(
        f"Plan: {'final release' if plan.kind == 'final' else 'pre-release'} {plan.name} {plan.new}, from {plan.start} at {plan.base[:12]}"
    )
    for number, step in enumerate(plan.steps(), start=1):
        say.info(f"{number:2} {step:<14} {plan.describe(step)}{' (done)' if step in journal.done else ''}")
    if not plan.publish:
        say.info("nothing leaves the machine: that takes --publish")


def _tell_next(context: Context, journal: "Journal") -> None:
    plan = journal.plan
    if not plan.publish:
        context.toolbox.log.info(
            f"next: look at git show {plan.tag}, then lockyard package release {plan.kind} --resume --publish"
        )


def _tell_abandoned(context: Context, files: tuple[str, ...]) -> None:
    for path in files:
        context.toolbox.log.info(f"as before: {path}")
    context.toolbox.log.info("the release is forgotten")


def _answer(context: Context, journal: "Journal", *, dry_run: bool, as_json: bool) -> None:
    plan = journal.plan
    if as_json:
        steps = [
            {
                "step": step, "what": plan.describe(step),
                "done": journal.done[step].said if step in journal.done else None,
            }
            for step in plan.steps()
        ]  # fmt: skip
        answer = {
            "kind": plan.kind, "old": plan.old, "new": plan.new, "tag": plan.tag, "branch": plan.home,
            "next": plan.next, "publish": plan.publish, "dry_run": dry_run, "steps": steps,
        }  # fmt: skip
        context.emit(json.dumps(answer, indent=1))
        return
    if dry_run:
        context.emit("\n".join(f"{step} {plan.describe(step)}" for step in plan.steps()))
        return
    lines = [plan.tag]
    for step in ("distributions", "images", "publish-git", "publish-index", "publish-images"):
        if step in journal.done:
            lines += [f"{step} {line}" for line in journal.done[step].said.splitlines()]
    context.emit("\n".join(lines))


COMMANDS = (release,)
