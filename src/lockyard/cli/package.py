"""The group `package`; each of its commands lives in a module of its own."""

import importlib

import click

PARTS = ("package_version", "package_lock", "package_dist", "package_images", "package_release")
"""The modules of `lockyard.cli` whose `COMMANDS` belong to the group."""


@click.group()
def package() -> None:
    r"""Release a Python package: its version, locks, distributions, images, the whole procedure.

    These work on the Python project around the current directory (or --root DIR): pyproject.toml of PEP 621 or of poetry,
    with an optional table [tool.lockyard.package]. pyproject.toml's version is the single source of truth.

    \b
    Examples:
      lockyard package bump minor --identifier a
      lockyard package lock --check
      lockyard package build
      lockyard package release final --dry-run
    """


for part in PARTS:
    for command in importlib.import_module(f"lockyard.cli.{part}").COMMANDS:
        package.add_command(command)

COMMANDS = (package,)
