#!/usr/bin/env python
"""Check, count or convert a ledger of mined annotations: ``lens-d2 ledger``."""

import sys

from lens_d2.commands import main

if __name__ == "__main__":
    sys.exit(main(["ledger", *sys.argv[1:]]))
