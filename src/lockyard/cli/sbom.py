"""`generate-sbom`."""

import click

from lockyard.cli.options import Context, image_type_option, pass_context, version_argument
from lockyard.version import Version


@click.command("generate-sbom")
@version_argument
@image_type_option
@click.option("--platform", "platforms", multiple=True, metavar="P", help="Only this platform (repeatable).")
@click.option(
    "--format", "formats", multiple=True, type=click.Choice(["cyclonedx", "spdx", "provenance"]),
    help="Only this one (repeatable) [default: all].",
)  # fmt: skip
@click.option("--output", metavar="DIR", help="Where to, below the root [default: out/VERSION/sbom].")
@click.option("--validate", is_flag=True, help="Ask the formats' own validators; slow for a thousand packages.")
@click.option(
    "--attach", metavar="R", help="Attach to the published images in this repository instead of writing files."
)
@click.option("--insecure", is_flag=True, help="Allow plain http to that repository.")
@pass_context
def generate_sbom(
    context: Context,
    *,
    version: Version,
    image_types: tuple[str, ...],
    platforms: tuple[str, ...],
    formats: tuple[str, ...],
    output: str | None,
    validate: bool,
    attach: str | None,
    insecure: bool,
) -> None:
    r"""Write bills of materials and provenance, one for each image and platform.

    CycloneDX 1.6 and SPDX 2.3 list every conda package with address, hashes, licence and size, who requires whom, and the
    base image; the SLSA statement of provenance (in-toto) says what went into an image that is built. They follow from
    the lock: the same lock gives the same bytes. `push` attaches them to what it publishes.

    \b
    Examples:
      lockyard generate-sbom 1.4.2
      lockyard generate-sbom 1.4.2 --format spdx --output bills
      lockyard generate-sbom 1.4.2 --attach registry.example.com/team/image
    """
    from lockyard.app import reports
    from lockyard.app import sbom as app
    from lockyard.reports.text import counted
    from lockyard.tree import check_relative

    workspace, toolbox = context.workspace, context.toolbox
    release = reports.read_release_facts(toolbox, workspace, version, image_types)
    chosen = formats or app.FORMATS
    if attach is not None:
        count = app.attach_to(
            toolbox, workspace, release, attach, formats=chosen, platforms=platforms, insecure=insecure
        )
        toolbox.log.info(f"attached {counted(count, 'document')}" if count else "all of them are attached already")
        return
    documents = app.statements(workspace, release, formats=chosen, platforms=platforms, validate=validate)
    directory = check_relative(output or f"out/{version}/sbom")
    context.emit("\n".join(app.write_documents(workspace, documents, directory)))


COMMANDS = (generate_sbom,)
