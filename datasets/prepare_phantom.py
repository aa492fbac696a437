#!/usr/bin/env python
"""Write the synthetic cohort: ``lens-d2 phantom``."""

import sys

from lens_d2.commands import main

if __name__ == "__main__":
    sys.exit(main(["phantom", *sys.argv[1:]]))
