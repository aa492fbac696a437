#!/usr/bin/env python
"""Compare two detectors on the same truth: ``lens-d2 compare``."""

import sys

from lens_d2.commands import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
