#!/usr/bin/env python
"""Train and evaluate a universal lesion detector: ``lens-d2 train``."""

import sys

from lens_d2.commands import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
