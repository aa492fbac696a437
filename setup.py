"""Package metadata; dependencies stand in requirements.txt alone, the version in lens_d2/__init__.py.

Detectron2 is not among the dependencies, for it has no release to name here: `make setup` installs it.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_requirements(name: str) -> list[str]:
    """The requirement lines of a file, without comments."""
    lines = (line.split(" #")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def read_version() -> str:
    """The version, read without importing the package (which needs Detectron2)."""
    return re.search(r'^__version__ = "(.+)"$', (ROOT / "lens_d2/__init__.py").read_text(), re.MULTILINE)[1]


setup(
    name="lens_d2",
    version=read_version(),
    description="Universal lesion detection in CT as a Detectron2 extension: LENS and Lesion-Harvester",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    entry_points={"console_scripts": ["lens-d2 = lens_d2.commands:main"]},
    packages=find_packages(include=["lens_d2", "lens_d2.*"]),
    include_package_data=True,  # the non-Python files that MANIFEST.in names
    install_requires=read_requirements("requirements.txt"),
    extras_require={
        "dev": read_requirements("requirements-dev.txt"),
        "benchmark": ["monai>=1.4"],  # `python -m experiments peers` alone needs it
    },
)
