"""`completion`: the script that a shell reads."""

import click
from click.shell_completion import get_completion_class

from lockyard.cli.options import Context, pass_context


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_context
def completion(context: Context, shell: str) -> None:
    r"""Print the completion script of a shell.

    \b
    Examples:
      eval "$(lockyard completion bash)"
      lockyard completion fish > ~/.config/fish/completions/lockyard.fish
    """
    from lockyard.cli.root import root_command

    cls = get_completion_class(shell)
    if cls is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    context.emit(cls(root_command, {}, "lockyard", "_LOCKYARD_COMPLETE").source())


COMMANDS = (completion,)
