"""The floors of docs/architecture.md: no import runs up."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the ground up; what stands on one line may not import from what stands below it on this page.
FLOORS = [
    "io",
    "structures",
    "data",
    "modeling",
    "inference",
    "evaluation",
    "visualization",
    "export",
    "mining",
    "config",
    "model_zoo",
    "lesion_detector",
    "engine",
    "commands",
    "__main__",
]
# Beside the floors: the synthetic cohort, which only its command imports.
BESIDE = {"phantom": {"io", "structures"}}


def modules():
    return sorted((ROOT / "lens_d2").rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """First names below lens_d2 of everything that a module imports."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module) if part)
            found |= {f"{name}.{alias.name}" for alias in node.names} if name == "lens_d2" else {name}
    return {name.split(".")[1] for name in found if name.startswith("lens_d2.")}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT / "lens_d2")))
def test_imports_run_down(path):
    room = path.relative_to(ROOT / "lens_d2").parts[0].removesuffix(".py")
    imported = imports_of(path) - {room, "__version__"}
    if room == "__init__":
        return
    allowed = BESIDE[room] if room in BESIDE else set(FLOORS[: FLOORS.index(room)])
    allowed |= set(BESIDE) if room == "commands" else set()
    assert imported <= allowed


@pytest.mark.parametrize(
    ("module", "blocked"),
    [
        ("lens_d2", ["torch", "detectron2", "SimpleITK"]),
        ("lens_d2.evaluation.curves", ["torch", "detectron2", "SimpleITK"]),
        ("lens_d2.evaluation.protocols", ["torch", "detectron2", "SimpleITK"]),
        ("lens_d2.io.formats", ["torch", "detectron2", "SimpleITK"]),
    ],
)
def test_light_modules_do_without_heavy_ones(module, blocked):
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import {module}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_tests_mirror_modules():
    """Each module has tests of its own name in the folder of its room."""
    own = [path.relative_to(ROOT / "lens_d2") for path in modules() if not path.name.startswith("_")]
    absent = [str(path) for path in own if not (ROOT / "tests" / path.with_name(f"test_{path.name}")).exists()]
    assert absent == []
