#!/usr/bin/env python
"""Draw the samples that training gets: ``lens-d2 visualize``."""

import sys

from lens_d2.commands import main

if __name__ == "__main__":
    sys.exit(main(["visualize", *sys.argv[1:]]))
