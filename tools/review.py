#!/usr/bin/env python
"""Let a radiologist judge what mining has proposed: ``lens-d2 review``."""

import sys

from lens_d2.commands import main

if __name__ == "__main__":
    sys.exit(main(["review", *sys.argv[1:]]))
