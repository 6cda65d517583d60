"""Run Lockyard from a checkout: `python src/main.py COMMAND` is the same as `lockyard COMMAND`."""

import sys

from lockyard.cli.root import main

if __name__ == "__main__":
    sys.exit(main())
