"""`python -m lockyard`."""

import sys

from lockyard.cli.root import main

if __name__ == "__main__":
    sys.exit(main())
