"""``python -m experiments.reproduce`` does what ``python -m experiments reproduce`` does."""

import sys

from ..__main__ import main

if __name__ == "__main__":
    sys.exit(main(["reproduce", *sys.argv[1:]]))
