"""From a prepared cache, training and inference need none of the packages that read scans."""

import json
import os
import subprocess
import sys

import numpy as np
import pydicom
from detectron2.data import DatasetCatalog
from helpers.blocks import EXPERTS, ROOT, blocks_cfg, register_blocks
from helpers.scan_files import make_affine, write_pngs, write_series

from lens_d2.data.cache import build_cache

READERS = ("SimpleITK", "pydicom", "highdicom", "nibabel")
RUN = """
import importlib.abc, json, sys
from pathlib import Path

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {readers}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
from detectron2.data import DatasetCatalog, MetadataCatalog
from lens_d2.commands.train import train
from lens_d2.config import load_config
from lens_d2.data.cache import build_cache
from lens_d2.engine import LENSTrainer

folder = Path(sys.argv[1])
datasets = json.loads((folder / "records.json").read_text())
scans = datasets.pop("scans")
for expert, records in datasets.items():
    DatasetCatalog.register(f"blocks_{{expert}}", lambda records=records: records)
    MetadataCatalog.get(f"blocks_{{expert}}").set(
        thing_classes=["lesion"], expert=expert, fully_labelled=expert != "deeplesion", truth_is_3d=True,
        evaluator_type="lens3d",
    )
cfg = load_config(folder / "blocks.yaml")
assert len([build_cache(cfg).open(record) for record in scans]) == 2
train(cfg, resume=False)
assert not {readers} & sys.modules.keys()
"""


def test_two_steps_and_an_evaluation_from_a_cache(tmp_path):
    """Records of volumes, of PNG slices and of DICOM series; training, and inference after it."""
    register_blocks(tmp_path / "data")
    cfg = blocks_cfg(tmp_path, "SOLVER.MAX_ITER", 2, "DATASETS.TEST", ("blocks_luna",), "TEST.OVERLAYS", 0)
    (tmp_path / "blocks.yaml").write_text(cfg.dump())
    records = {expert: DatasetCatalog.get(f"blocks_{expert}") for expert in EXPERTS}
    voxels = np.random.default_rng(0).normal(40, 60, (4, 32, 32)).astype(np.int16)
    pngs = write_pngs(tmp_path / "pngs", voxels)
    series = write_series(tmp_path / "series", voxels, make_affine((2, 2, 3)))
    uid = pydicom.dcmread(next(series.iterdir())).SeriesInstanceUID
    records["scans"] = [
        {"file_name": str(pngs), "volume": "pngs", "spacing": [2, 2, 3]},
        {"file_name": str(series), "volume": "series", "series_uid": uid},
    ]
    (tmp_path / "records.json").write_text(json.dumps(records))
    cache = build_cache(cfg)
    for record in (record for own in records.values() for record in own):
        cache.build(record)
    code = RUN.format(readers=set(READERS))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "output/model_final.pth").exists()
    assert (tmp_path / "output/inference/blocks_luna/metrics.json").exists()
