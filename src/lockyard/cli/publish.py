"""Publish: `push` and `promote`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockyard.cli.options import (
    Context,
    dry_run_option,
    image_type_option,
    json_option,
    one_or_more,
    pass_context,
    region_option,
    version_argument,
    versions_argument,
)
from lockyard.cli.wave import answer
from lockyard.version import Version

if TYPE_CHECKING:
    from lockyard.app.promote import PromoteResult
    from lockyard.app.publish import PublishResult
    from lockyard.app.workspace import Workspace


@click.command("push")
@versions_argument
@click.option(
    "--target-ecr-repo", "targets", multiple=True, metavar="R",
    help="Where to: an alias of [tool.lockyard.repositories], HOST/NAME or oci:DIR below the root (repeatable).",
)  # fmt: skip
@click.option(
    "--from", "source", metavar="STAGE",
    help="Publish what this repository has, by digest, when every type's test record there is green.",
)  # fmt: skip
@region_option
@image_type_option
@click.option("--skip-tests", is_flag=True, help="Push untested images: exact tags only, marked untested.")
@click.option("--move-tag", is_flag=True, help="Let the exact tag of a pre-release move to this build.")
@click.option("--no-sbom", is_flag=True, help="Attach no bills of materials and no provenance.")
@click.option("--insecure", is_flag=True, help="Allow plain http to hosts other than this machine.")
@click.option(
    "--image-refs", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the answer here too."
)
@dry_run_option
@json_option
@pass_context
def push(
    context: Context,
    *,
    versions: tuple[Version, ...],
    targets: tuple[str, ...],
    source: str | None,
    image_types: tuple[str, ...],
    skip_tests: bool,
    move_tag: bool,
    no_sbom: bool,
    insecure: bool,
    region: str | None,
    image_refs: Path | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    r"""Publish the tested images of a release, or of several.

    Blobs and manifests go first, then the exact tags of all repositories, then the floating tags. Layers that a repository
    has are not sent again, and an interrupted push goes on when it is run again. An image is published only when its test
    record belongs to exactly these bytes. stdout has one REPOSITORY@DIGEST TAG a line. Of several releases one that cannot be published
    leaves the others alone; the exit code is that of the first failure.

    \b
    Examples:
      lockyard push 1.4.2 --target-ecr-repo registry.example.com/team/image --dry-run
      lockyard push 1.4.2 --target-ecr-repo first --target-ecr-repo second
      lockyard push 1.4.2 --target-ecr-repo oci:registry/first --image-type cpu
      lockyard push 1.4.2 --from stage --target-ecr-repo production
      lockyard push 1.4.3 1.5.1 --target-ecr-repo production
    """
    from lockyard.app.publish import PublishRequest, publish_release

    request = PublishRequest(
        targets=targets,
        image_types=image_types,
        source=source,
        skip_tests=skip_tests,
        dry_run=dry_run,
        move_tag=move_tag,
        insecure=insecure,
        attach=not no_sbom,
        region=region,
        image_refs=image_refs if len(versions) == 1 else None,
    )

    def publish(workspace: "Workspace", version: Version) -> "PublishResult":
        if len(versions) > 1:
            context.toolbox.log.step(f"publishing {version}")
        result = publish_release(context.toolbox, workspace, version, request)
        tell_published(context, result)
        return result

    if len(one_or_more(versions)) > 1:
        from lockyard.app.wave import publish_wave

        outcomes = publish_wave(context.toolbox, context.workspace, versions, publish)
        return answer(context, outcomes, image_refs=None if dry_run else image_refs, as_json=as_json)
    result = publish(context.workspace, versions[0])
    if as_json:
        context.emit(json.dumps(publish_value(result), indent=2, sort_keys=True))
    elif dry_run:
        context.emit("\n".join(result.plan.lines()))
    else:
        context.emit("\n".join(result.lines))
    return 0


def tell_published(context: Context, result: "PublishResult") -> None:
    """Tell on stderr what was sent and what was not."""
    from lockyard.reports.text import counted, human_size

    log, report, plan = context.toolbox.log, result.report, result.plan
    for pull in result.pulls:
        what = f"{pull.image_type} {pull.platform}"
        whole = f"{human_size(pull.whole)} in {counted(pull.all_layers, 'layer')}"
        if pull.previous is None:
            log.info(f"a client pulls {what}: {whole}; no earlier release is known")
        else:
            part = f"{human_size(pull.size)} in {counted(pull.layers, 'layer')}"
            log.info(f"a client of {pull.previous} pulls {part} of {what} ({whole})")
    if report is None:
        log.info(
            f"would upload {human_size(plan.upload_bytes)}, mount {human_size(plan.mount_bytes)}; "
            f"{human_size(plan.present_bytes)} are there already"
        )
        return
    ahead = sum(item.report.sent_bytes for item in result.ahead.values())
    early = f" ({human_size(ahead)} before the push)" if ahead else ""
    log.info(
        f"sent {human_size(report.sent_bytes)} in {report.uploaded_blobs} blobs{early}, "
        f"mounted {human_size(report.mounted_bytes)}; {human_size(sum(result.present_bytes.values()))} were there already"
    )


def publish_value(result: "PublishResult") -> dict[str, Any]:
    """Return what is published as `push --json` prints it."""
    from dataclasses import asdict

    from lockyard.app.publish import pull_json

    return {
        "schema": 1,
        "version": str(result.version),
        "tested": result.tested,
        "published": [asdict(item) for item in result.published] if result.report is not None else [],
        "plan": result.plan.to_json(),
        "client_pulls": [pull_json(pull) for pull in result.pulls],
        "report": asdict(result.report) if result.report is not None else None,
    }


@click.command("promote")
@version_argument
@click.option("--target-ecr-repo", "targets", multiple=True, metavar="R", help="Publish there, too (repeatable).")
@click.option("--from", "source", metavar="REPO", help="Take the images from this repository, not from out/.")
@region_option
@click.option("--insecure", is_flag=True, help="Allow plain http to hosts other than this machine.")
@click.option(
    "--image-refs", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the answer here too."
)
@dry_run_option
@json_option
@pass_context
def promote(
    context: Context,
    *,
    version: Version,
    targets: tuple[str, ...],
    source: str | None,
    region: str | None,
    insecure: bool,
    image_refs: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    r"""Make a tested pre-release the final version.

    The layers stay the very same; of the configuration only the version label, IMAGE_VERSION and the time may differ, and
    the proof of it is printed. The final release directory is written from the pre-release's and must not differ from it if
    it is there. The record of the image tests carries over. stdout has TYPE PLATFORM DIGEST, or with targets
    REPOSITORY@DIGEST TAG, a line each.

    \b
    Examples:
      lockyard promote 1.4.2-beta.1 --dry-run
      lockyard promote 1.4.2-beta.1 --target-ecr-repo production
      lockyard promote 1.4.2-beta.1 --from stage --target-ecr-repo production
    """
    from lockyard.app.promote import promote_release
    from lockyard.app.publish import PublishRequest

    if source is not None and not targets:
        raise click.UsageError("--from needs --target-ecr-repo: nothing is kept here")
    request = PublishRequest(
        targets=targets, source=source, dry_run=dry_run, insecure=insecure, region=region, image_refs=image_refs
    )
    result = promote_release(context.toolbox, context.workspace, version, request)
    for image in result.images:
        context.log.info(f"{image.image_type} {image.platform}: {image.old} -> {image.new}")
        for line in image.proof:
            context.log.info(f"  {line}")
    if result.published is not None:
        tell_published(context, result.published)
    if as_json:
        context.emit(_promotion_json(result))
    elif result.published is not None:
        context.emit("\n".join(result.published.lines))
    else:
        context.emit("\n".join(f"{item.image_type} {item.platform} {item.new}" for item in result.images))


def _promotion_json(result: "PromoteResult") -> str:
    value = {
        "schema": 1,
        "source": str(result.source),
        "version": str(result.version),
        "images": [
            {
                "image_type": item.image_type,
                "platform": item.platform,
                "old": str(item.old),
                "new": str(item.new),
                "proof": item.proof,
            }
            for item in result.images
        ],
        "published": publish_value(result.published) if result.published is not None else None,
    }
    return json.dumps(value, indent=2, sort_keys=True)


COMMANDS = (push, promote)
