"""What may not happen: running what a file holds, leaving half a file behind, leaving the dataset's folder."""

import ast
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.scan_files import make_affine, write_volume

from lens_d2.data.datasets import deeplesion, lits, luna
from lens_d2.data.datasets.catalog import Faults
from lens_d2.data.volume import read_volume
from lens_d2.io.errors import DataError
from lens_d2.io.formats import read_boxes3d, read_lens_set, read_revised
from lens_d2.mining.shards import ShardStore

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("lens_d2", "tools", "demo", "datasets", "experiments", "benchmarks")
SOURCES = [
    *ROOT.glob("*.py"),
    *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")),
]
READING = {"load", "loads", "Unpickler", "read_pickle"}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "pd", "pandas"}
WRITING = {"write_text", "write_bytes", "savefig", "imwrite", "WriteImage", "to_csv", "to_parquet"}
WRITING |= {"ParquetWriter", "save", "save_as", "to_json", "to_excel", "tofile", "savez", "savez_compressed"}
# A folder of these appears under its name when it is complete (write_cohort); whole_file itself; in-memory streams
# and folders that are gone afterwards.
WRITTEN_OTHERWISE = {
    "lens_d2/io/files.py",
    "lens_d2/phantom/cohort.py",
    "lens_d2/phantom/writers.py",
    "lens_d2/data/sources/gdcm_decoder.py",
    "lens_d2/export/label_map.py",
    "lens_d2/export/dicom_document.py",
    "benchmarks/data_path.py",
    "benchmarks/networks.py",
    "experiments/reproduce/jobs.py",  # the logs of processes
}


def calls(path: Path):
    """(object or "", name, call, the source of the function around it) of every call in a file."""
    lines = path.read_text().splitlines()
    tree = ast.parse("\n".join(lines))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            around = [f for f in functions if f.lineno <= node.lineno <= f.end_lineno]
            inner = max(around, key=lambda f: f.lineno, default=tree)
            source = "\n".join(lines[inner.lineno - 1 : inner.end_lineno] if around else lines)
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
            raise AssertionError(f"{where}: {owner}.{function} runs what a file holds; use lens_d2.io.pickles")
        assert keywords.get("allow_pickle", "False") == "False", f"{where}: allow_pickle"
        if owner == "yaml" and function.startswith("load"):
            assert "Safe" in ast.unparse(call), f"{where}: yaml.{function} makes objects; use yaml.safe_load"
        if function == "merge_from_file":
            assert keywords.get("allow_unsafe") == "False", f"{where}: a config may run code; use load_config"
        modes = [ast.unparse(each) for each in [*call.args[1:2], *call.keywords]] if function == "open" else []
        # LENSCheckpointer and LesionDetector's findings write whole files.
        writes = function in WRITING and not owner.endswith(("checkpointer", "findings"))
        writes |= any(mode.strip("'")[:1] in "wax" for mode in modes if mode[:1] == "'")
        writes |= function == "dump" and len(call.args) > 1
        if writes and name not in WRITTEN_OTHERWISE:
            assert "whole_file(" in source or "write_whole(" in source, (
                f"{where}: {function} may leave half a file; use whole_file"
            )


# Paths in tables. No cell of a table may lead out of the dataset's folder.

OUTSIDE = ("../../000001_01_01", "/etc/000001_01_01", "000001_01_01/..")


@pytest.mark.parametrize("outside", OUTSIDE)
def test_names_in_tables_do_not_lead_out_of_the_dataset(outside, tmp_path):
    (tmp_path / "marks.csv").write_text(f"{','.join(deeplesion.COLUMNS)}\n{outside}_012.png{',1' * 10}\n")
    with pytest.raises(DataError, match="File_name is not <patient>_<study>_<series>_<slice>.png"):
        deeplesion.read_mark_table(tmp_path / "marks.csv")
    (tmp_path / "spacing.csv").write_text(f"volume,x,y,z,axes\n{outside},1,1,1,LPS\n")
    with pytest.raises(DataError, match="not a volume's number"):
        lits.read_corrections(tmp_path / "spacing.csv")
    for write, read in ((dump_revised, read_revised), (dump_boxes3d, read_boxes3d), (dump_lens, read_val)):
        write(tmp_path / "boxes.pkl", f"{outside}_010-016")
        with pytest.raises(DataError, match="is not the name of a sub-volume"):
            read(tmp_path / "boxes.pkl")


def dump_revised(path, name):
    path.write_bytes(pickle.dumps({f"{name}.annot": {2: [[1, 2, 3, 4, 2, 2]]}}))


def dump_boxes3d(path, name):
    path.write_bytes(pickle.dumps({name: [[1, 2, 3, 4, 2, 2]]}))


def read_val(path):
    return read_lens_set(path, "val")


def dump_lens(path, name):
    path.write_bytes(pickle.dumps({"val": {name: [[1, 2, 3, 4, 5, 6]]}}))


@pytest.mark.parametrize("outside", OUTSIDE)
def test_luna_opens_only_scans_that_it_found(outside, tmp_path):
    for name in ("1.2", "1.3"):
        folder = tmp_path / "LUNA16/subset0"
        folder.mkdir(parents=True, exist_ok=True)
        write_volume(folder / f"{name}.mhd", np.zeros((4, 5, 6), np.int16), make_affine((1, 1, 1)))
    rows = f"{outside},1,1,1,2\n1.2,1,1,1,2\n"
    (tmp_path / "LUNA16/annotations.csv").write_text(f"{','.join(luna.COLUMNS)}\n{rows}")
    records = luna.read_split("train", tmp_path, Faults()) + luna.read_split("val", tmp_path, Faults())
    assert {Path(record["file_name"]).parent for record in records} == {folder}
    assert [record["volume"] for record in records if record["lesions"]] == ["1.2"]


@pytest.mark.parametrize("outside", ["../secret.raw", "/etc/secret.raw"])
@pytest.mark.parametrize(("suffix", "key"), [("mhd", "ElementDataFile = "), ("nhdr", "data file: ")])
def test_voxels_lie_beside_their_header(outside, suffix, key, tmp_path):
    (tmp_path / "in").mkdir()
    path = write_volume(tmp_path / f"in/ct.{suffix}", np.zeros((4, 5, 6), np.int16), make_affine((1, 1, 1)))
    assert read_volume(path).array.shape == (4, 5, 6)
    data = re.sub(rf"(?i)^{key}.*$", f"{key}{outside}", path.read_bytes().decode("latin-1"), flags=re.MULTILINE)
    assert outside in data
    path.write_text(data, "latin-1")
    (tmp_path / "secret.raw").write_bytes(bytes(240))
    with pytest.raises(DataError, match="outside of its folder"):
        read_volume(path)


def test_a_shard_stays_in_its_folder(tmp_path):
    for outside in OUTSIDE:
        assert ShardStore(tmp_path, "model").path({"volume": outside}).parent == tmp_path
