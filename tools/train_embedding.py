#!/usr/bin/env python
"""Train and calibrate the lesion embedding: ``lens-d2 embedding``."""

import sys

from lens_d2.commands import main

if __name__ == "__main__":
    sys.exit(main(["embedding", *sys.argv[1:]]))
