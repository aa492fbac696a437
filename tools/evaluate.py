#!/usr/bin/env python
"""Score detections under a published protocol: ``lens-d2 evaluate``."""

import sys

from lens_d2.commands import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
