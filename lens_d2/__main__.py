"""Lets ``python -m lens_d2`` and ``torchrun -m lens_d2`` stand for the command ``lens-d2``."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())
