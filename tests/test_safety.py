"""What no file of the project may do: run what a file holds, or leave half a file behind."""

import ast
from pathlib import Path

import pytest

from lens_d2.data.files import whole_file, write_whole

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    *ROOT.glob("*.py"),
    *(path for folder in ("lens_d2", "tools", "demo", "datasets") for path in (ROOT / folder).rglob("*.py")),
]
READING = {"load", "loads", "Unpickler", "read_pickle"}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "pd", "pandas"}
WRITING = {"write_text", "write_bytes", "savefig", "imwrite", "WriteImage", "to_csv", "to_parquet"}
WRITING |= {"ParquetWriter", "save", "save_as", "to_json", "to_excel", "tofile", "savez", "savez_compressed"}
# A folder of these appears under its name when it is complete (write_cohort); whole_file itself; in-memory streams
# and a folder that is gone afterwards; a renaming of its own, for the demo starts without importing the package.
WRITTEN_OTHERWISE = {
    "lens_d2/data/files.py",
    "lens_d2/data/phantom/cohort.py",
    "lens_d2/data/phantom/writers.py",
    "lens_d2/export/label_map.py",
    "lens_d2/export/structured_report.py",
    "tools/demo.py",
}


def calls(path: Path):
    """(object or "", name, call, the source of the function around it) of every call in a file."""
    text = path.read_text()
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            around = [f for f in functions if f.lineno <= node.lineno <= f.end_lineno]
            inner = max(around, key=lambda f: f.lineno, default=tree)
            source = ast.get_source_segment(text, inner) if around else text
            if isinstance(node.func, ast.Attribute):
                yield ast.unparse(node.func.value), node.func.attr, node, source
            elif isinstance(node.func, ast.Name):
                yield "", node.func.id, node, source


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_reads_and_writes_safely(path):
    name = str(path.relative_to(ROOT))
    for owner, function, call, source in calls(path):
        where = f"{name}:{call.lineno}"
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if owner == "torch" and function == "load":
            assert keywords.get("weights_only") == "True", f"{where}: torch.load without weights_only"
        if owner in PICKLES and function in READING:
            raise AssertionError(f"{where}: {owner}.{function} runs what a file holds; use lens_d2.data.pickles")
        assert keywords.get("allow_pickle", "False") == "False", f"{where}: allow_pickle"
        if owner == "yaml" and function.startswith("load"):
            assert "Safe" in ast.unparse(call), f"{where}: yaml.{function} makes objects; use yaml.safe_load"
        modes = [ast.unparse(each) for each in [*call.args[1:2], *call.keywords]] if function == "open" else []
        writes = function in WRITING or any(mode.strip("'")[:1] in "wax" for mode in modes if mode[:1] == "'")
        writes |= function == "dump" and len(call.args) > 1
        if writes and name not in WRITTEN_OTHERWISE:
            assert "whole_file(" in source, f"{where}: {function} may leave half a file; use whole_file"


def test_nothing_half_written_is_left(tmp_path):
    path = tmp_path / "new/table.csv"
    assert write_whole(path, b"first") == path and path.read_bytes() == b"first"
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".csv" and temporary.name[0] == "."
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"first" and list(path.parent.iterdir()) == [path]
