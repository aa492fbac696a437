"""Installation of Detectron2 beside the package: ``lens-d2 setup``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
from pathlib import Path

from ..io.errors import DataError

REQUIREMENT = Path(__file__).with_name("requirements-detectron2.txt")


def pip_command() -> list[str]:
    """Give the call of pip that installs the wheel.

    The wheel is tagged for Python 3.10, and its source runs on later ones, so pip is told to install for another
    machine. What its metadata asks for beside (numpy<2, black) is not needed.
    """
    command = [sys.executable, "-m", "pip", "install", "--upgrade", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", "3.10", "--require-hashes", "-r", str(REQUIREMENT)]
    return [*command, "--no-warn-conflicts", "--target", sysconfig.get_path("purelib")]


def run(args: argparse.Namespace) -> None:
    """Install Detectron2 into this environment.

    Raises:
        DataError: pip failed.
    """
    code = subprocess.run(pip_command()).returncode
    if code:
        raise DataError("Detectron2", f"pip ended with exit code {code}; its last lines above say why")
