#!/usr/bin/env python
"""Check datasets and preprocess their volumes: ``lens-d2 prepare``."""

import sys

from lens_d2.commands import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
