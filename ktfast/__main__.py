"""`python -m ktfast` is the same as the command `ktfast`."""

import sys

from ktfast.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
