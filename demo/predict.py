#!/usr/bin/env python
"""Find lesions in CT scans: ``lens-d2 predict``."""

import sys

from lens_d2.commands import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
