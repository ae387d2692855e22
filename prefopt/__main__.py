"""python -m prefopt: the command `prefopt`."""

from __future__ import annotations

import sys

from prefopt.cli import main

if __name__ == "__main__":
    sys.exit(main())
