"""Reads one volume after the other for test_fuzz_volumes.py, in a process whose death is an outcome.

Standard input: a line of JSON for each, the keywords of ``read_volume``. Standard output: a line of JSON for each:
``refused`` (the error), or ``array``, ``affine`` and ``warnings``.
"""

import json
import os
import signal
import sys

from lens_d2.data.volume import read_volume
from lens_d2.io.errors import DataError

HANG = 20  # seconds; then the process is ended by a signal


def outcome(record: dict) -> dict:
    try:
        volume = read_volume(record)
    except DataError as error:
        return {"refused": str(error)}
    return {
        "array": volume.array.tolist(),
        "affine": [list(row) for row in volume.geometry.affine],
        "warnings": list(volume.warnings),
    }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what native readers print is no answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        signal.alarm(HANG)
        print(json.dumps(outcome(json.loads(line))), file=answers, flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main()
