"""The command `labservice`."""

import click

from labservice import __version__
from labservice.client import Client, LabError
from labservice.device import cuda_devices


@click.group()
@click.option("--url", default="http://127.0.0.1:8080", envvar="LABSERVICE_URL", show_default=True, help="The server.")
@click.version_option(__version__, prog_name="labservice")
@click.pass_context
def command(context: click.Context, url: str) -> None:
    """Add and list the measurements of a laboratory."""
    context.obj = url


@command.command()
@click.argument("name")
@click.argument("value", type=float)
@click.option("--unit", default="")
@click.pass_obj
def add(url: str, name: str, value: float, unit: str) -> None:
    """Send a measurement of now."""
    measurement = Client(url).add(name, value, unit)
    click.echo(f"{measurement.name} {measurement.value:g} {measurement.unit}".rstrip())


@command.command("list")
@click.option("--name", help="Only measurements of this name.")
@click.pass_obj
def list_(url: str, name: str | None) -> None:
    """List measurements, oldest first."""
    for item in Client(url).find(name):
        click.echo(f"{item.name} {item.value:g} {item.unit}".rstrip())


@command.command()
def devices() -> None:
    """Say how many GPUs there are."""
    click.echo(str(cuda_devices()))


def main() -> None:
    """Run the command line."""
    try:
        command(prog_name="labservice")
    except LabError as error:
        raise SystemExit(f"labservice: {error}") from error
