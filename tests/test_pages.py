"""The pages that `make docs` builds: without a warning, a network or a dead link."""

import os
import re
import subprocess
import sys
from urllib.parse import unquote

import pytest

pytest.importorskip("sphinx", reason="needs Sphinx, which `make setup DEV=no` leaves out")


@pytest.fixture(scope="module")
def pages(repo_root, tmp_path_factory):
    """{path below the folder: HTML} of all pages, and the folder."""
    folder = tmp_path_factory.mktemp("docs")
    makefile = (repo_root / "Makefile").read_text()
    (options,) = re.findall(r"-m sphinx (.+) docs build/docs", makefile)
    command = [sys.executable, "-m", "sphinx", *options.split(), "-d", str(folder / "cache"), "docs", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(repo_root), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=repo_root, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.html")}, folder


def test_public_names_have_their_place(pages):
    names = [
        "lens_d2.lesion_detector.LesionDetector",
        "lens_d2.lesion_detector.Findings",
        "lens_d2.evaluation.froc",
    ]
    names += ["lens_d2.model_zoo.get", "lens_d2.evaluation.readers.read_boxes", "lens_d2.data.volume.read_volume"]
    names += ["lens_d2.structures.geometry.VolumeGeometry", "lens_d2.data.datasets.catalog.register"]
    text = "\n".join(pages[0].values())
    assert [name for name in names if f'id="{name}"' not in text] == []


def test_arguments_and_registries_are_tables_not_text(pages):
    detector, registries = pages[0]["api/detector.html"], pages[0]["api/registries.html"]
    assert "Args:" not in detector and "<strong>score_threshold</strong>" in detector
    assert all(f">{name}</span>" in registries for name in ("NiftiFile", "lens3d", "nndetection", "HtmlReport"))


def test_links_lead_to_files_and_headings(pages):
    texts, folder = pages
    dead = []
    for page, text in texts.items():
        for link in re.findall(r'<a [^>]*href="([^"]+)"', text):
            path, _, anchor = unquote(link).partition("#")
            if "://" in link or link.startswith("mailto:"):
                continue
            target = (folder / page).parent / path if path else folder / page
            if (
                not target.is_file()
                or anchor
                and target.suffix == ".html"
                and f'id="{anchor}"' not in target.read_text()
            ):
                dead.append((page, link))
    assert dead == []


def test_pages_ask_nothing_of_the_network(pages):
    for page, text in pages[0].items():
        loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(\w+:)?//', text)
        assert loaded == [], page
