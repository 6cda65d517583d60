"""`pin-bases` and `build-base`."""

import json

import click

from lockyard.cli.options import VERSION, Context, dry_run_option, image_type_option, json_option, pass_context
from lockyard.version import Version


@click.command("pin-bases")
@click.argument("version", type=VERSION, required=False, metavar="[VERSION]")
@click.option("--check", is_flag=True, help="Write nothing; exit 8 when a base would change.")
@dry_run_option
@json_option
@pass_context
def pin_bases_command(context: Context, *, version: Version | None, check: bool, dry_run: bool, as_json: bool) -> None:
    r"""Write the digests of base images into variants.toml.

    Each base that is a reference with a tag gets the digest that its tag leads to now; comments stay. The image must have
    every platform of its variant. With VERSION only that version's major line is done. A pinned base is the same image
    tomorrow; run this again to take a newer one, and review the change like any other.
    Prints FILE:LINE OLD NEW, one base a line, the changed ones only.

    \b
    Examples:
      lockyard pin-bases
      lockyard pin-bases --dry-run
      lockyard pin-bases 1.4.2 --check
    """
    from lockyard.app.bases import pin_bases

    pins = pin_bases(context.toolbox, context.workspace, version=version, dry_run=dry_run, check=check)
    changed = [pin for pin in pins if pin.changed]
    if as_json:
        items = [{"where": pin.where, "old": pin.old, "new": pin.new, "changed": pin.changed} for pin in pins]
        context.emit(json.dumps({"written": bool(changed) and not dry_run, "bases": items}, indent=1))
    elif changed:
        context.emit("\n".join(f"{pin.where} {pin.old} {pin.new}" for pin in changed))
    say = context.toolbox.log
    if not pins:
        say.info("no base is a reference in a registry with a tag")
    elif not changed:
        say.info(f"{len(pins)} bases are pinned to what their tags lead to")
    else:
        say.info(f"{len(changed)} of {len(pins)} bases {'would change' if dry_run else 'were pinned'}")


def _line(_: click.Context, __: click.Parameter, value: str) -> Version:
    """Take `1.4` (or `v1.4`) for the line, or any version of it."""
    text = value.removeprefix("v")
    return Version.parse(f"{text}.0" if text.count(".") == 1 else text)


def _pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    for value in values:
        if "=" not in value:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE")
    return dict(value.split("=", 1) for value in values)


@click.command("build-base")
@click.argument("version", metavar="LINE|VERSION", callback=_line)
@image_type_option
@click.option("--platform", "platforms", multiple=True, metavar="P", help="Only this conda platform, such as linux-64.")
@click.option(
    "--target-ecr-repo", "target", metavar="R", help="Push the bases there, so that every machine finds them."
)
@click.option(
    "--engine", type=click.Choice(["docker", "buildkit"]), default="docker", show_default=True, help="What builds."
)
@click.option(
    "--builder", metavar="NAME", help="BuildKit's builder, as in docker buildx ls [default: the current one]."
)
@click.option(
    "--secret", "secrets", multiple=True, metavar="id=N,env=V", help="A secret for steps that mount it; BuildKit only."
)
@click.option("--build-arg", "build_args", multiple=True, callback=_pairs, metavar="K=V", help="A build argument.")
@click.option("--no-cache", is_flag=True, help="Run every step again: how updates of the operating system are taken.")
@json_option
@pass_context
def build_base_command(
    context: Context,
    *,
    version: Version,
    image_types: tuple[str, ...],
    platforms: tuple[str, ...],
    target: str | None,
    engine: str,
    builder: str | None,
    secrets: tuple[str, ...],
    build_args: dict[str, str],
    no_cache: bool,
    as_json: bool,
) -> None:
    r"""Build Dockerfile.base of a line: what changes seldom, below the environment.

    template/vX/vX.Y/Dockerfile.base (else template/vX/Dockerfile.base) begins with ARG BASE_IMAGE and FROM ${BASE_IMAGE}, the base
    that variants.toml names, and may have RUN. It is built for each type and platform; the digests are written into bases.json
    beside it, to be committed, and build begins from them. Without a target they are in out/bases/ of this machine alone.
    Prints TYPE PLATFORM DIGEST, one base a line.

    \b
    Examples:
      lockyard build-base 1.4
      lockyard build-base 1.4 --target-ecr-repo registry.example.com/team/bases
      lockyard build-base 1.4.2 --engine buildkit --builder cluster --no-cache
    """
    from lockyard.app.buildbase import build_base
    from lockyard.app.engines import EngineOptions
    from lockyard.engines.buildx import parse_secret

    options = EngineOptions(
        engine=engine, builder=builder, secrets=tuple(map(parse_secret, secrets)), no_cache=no_cache
    )
    found = build_base(
        context.toolbox, context.workspace, version, image_types=image_types, platforms=platforms, options=options,
        build_args=build_args, target=target,
    )  # fmt: skip
    if as_json:
        items = [
            {
                "image_type": item.image_type, "platform": item.platform, "digest": item.base.digest,
                "reference": item.base.reference, "layers": item.layers, "size": item.size,
            }
            for item in found
        ]  # fmt: skip
        context.emit(json.dumps({"bases": items}, indent=1))
    else:
        context.emit("\n".join(f"{item.image_type} {item.platform} {item.base.digest}" for item in found))
    if target is None:
        context.toolbox.log.info("the bases are in out/bases/ of this machine alone; --target-ecr-repo shares them")


COMMANDS = (pin_bases_command, build_base_command)
