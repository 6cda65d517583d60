"""Make the demo channel or the base root file system: `python -m demochannel channel|base --output ... --work ...`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from demochannel.base import build_base
from demochannel.channel import build_channel
from demochannel.errors import DemoError

COMMANDS = {
    "base": (build_base, "a small Debian root file system, as a .tar.zst file"),
    "channel": (build_channel, "a small conda channel in dated editions, as a directory"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its answer, a path, goes to standard output."""
    parser = argparse.ArgumentParser(prog="demochannel", description=sys.modules["demochannel"].__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"Make {text}.")
        command.add_argument("--output", type=Path, required=True, help="what to make; complete results are kept")
        command.add_argument("--work", type=Path, required=True, help="where downloads are kept between runs")
    options = parser.parse_args(arguments)
    build, _ = COMMANDS[options.command]
    try:
        answer = build(options.output, options.work, _tell)
    except (DemoError, OSError) as error:
        print(f"demochannel: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demochannel: interrupted", file=sys.stderr)
        return 130
    print(answer)
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
