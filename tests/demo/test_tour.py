"""demo/tour.ipynb runs from top to bottom, and is stored without outputs."""

import re

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from lens_d2 import model_zoo
from lens_d2.evaluation.operating_points import OperatingPoints
from lens_d2.io import zoo
from lens_d2.model_zoo.pack import pack_weights

NAME = "phantom/lens_best"


@pytest.fixture
def notebook(repo_root):
    return nbformat.read(repo_root / "demo/tour.ipynb", as_version=4)


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> str:
    """Code that a kernel runs first: where the package has no trained weights yet, its zoo has random ones."""
    if NAME in model_zoo.names():
        return ""
    torch.manual_seed(0)
    torch.save({"model": model_zoo.get(NAME).state_dict()}, tmp_path / "model.tmp")
    points = {"fused": OperatingPoints({4.0: 0.0}, 1.0, 0.0, "nobody: random weights")}
    pack_weights(tmp_path / "model.tmp", tmp_path / f"weights/{NAME}.pth", operating_points=points)
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path / "weights")
    assert NAME in model_zoo.names()
    return (
        f"from pathlib import Path\nfrom lens_d2.io import zoo\nzoo.WEIGHTS = Path({str(tmp_path / 'weights')!r})"
    )


def test_it_runs_and_names_no_path_of_the_machine(notebook, stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook.cells.insert(0, new_code_cell(f"{stand_in}\nimport torch\ntorch.set_num_threads(1)"))
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells[1:] if cell.cell_type == "code" for output in cell.outputs]
    texts = [str(output.get("text") or output["data"].get("text/plain")) for output in outputs if output]
    assert [text for text in texts if re.search(r"/tmp|/home|/root|site-packages", text)] == []
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2 and any(
        "<iframe" in output.get("data", {}).get("text/html", "") for output in outputs
    )
    assert any("average sensitivity" in text for text in texts) and not list(tmp_path.glob("*/phantom/DeepLesion"))


def test_it_is_stored_without_outputs(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert max(len(cell.source.splitlines()) for cell in code) <= 18


def test_its_links_lead_somewhere(notebook, repo_root):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 3 and all((repo_root / "demo" / link).exists() for link in links)
