"""The configs of harvesting name what there is, and so do its datasets."""

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog

from lens_d2 import add_lens_config
from lens_d2.data.datasets.catalog import Faults
from lens_d2.data.datasets.deeplesion import read_rest
from lens_d2.engine import STAGES
from lens_d2.io import formats as released


@pytest.mark.parametrize("name", ["harvester.yaml", "phantom/harvester.yaml"])
def test_the_configs_name_what_there_is(repo_root, name):
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.merge_from_file(str(repo_root / "configs" / name))
    assert all(stage in STAGES for stage in cfg.STAGES)
    names = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, cfg.HARVEST.VERIFIED, cfg.HARVEST.TEST}
    assert names <= set(DatasetCatalog.list()) and cfg.HARVEST.VERIFIED in cfg.DATASETS.TRAIN
    if name == "harvester.yaml":
        tracker, keys = cfg.TEST.TRACKER, cfg.HARVEST
        assert (keys.SCORE_THRESH, tracker.IOU, tracker.EXTEND, tracker.FUSE_IOU) == (0.1, 0.8, 1, 0.8)
        assert cfg.TEST.LINKER == "BoxTracker" and cfg.TEST.NATIVE_SLICES
        assert (keys.ROUNDS, keys.PRECISION, keys.NEGATIVE_SCORE_THRESH) == (3, 0.95, 0.5)
        assert (keys.NEGATIVES_PER_VOLUME, keys.HIT_IOU, cfg.INPUT.NUM_SLICES) == (5, 0.5, 9)
        assert cfg.MODEL.LPC.NAME == "GLC_MV"


def test_v_h_is_the_training_split_without_v_m(tmp_path):
    """Also where a sub-volume of V_M is a part of one of the training split."""
    csv = tmp_path / "DeepLesion/DL_info.csv"
    csv.parent.mkdir()
    columns = (
        "File_name,Key_slice_index,Measurement_coordinates,Bounding_boxes,Lesion_diameters_Pixel_,"
        "Coarse_lesion_type,Possibly_noisy,Slice_range,Spacing_mm_px_,Image_size,Train_Val_Test"
    )
    lines = [columns]
    for series in ("000001_01_01", "000001_01_02", "000002_01_01"):
        lines.append(
            f'{series}_012.png,12,"21, 31, 41, 31, 31, 26, 31, 36","16, 21, 46, 41","20, 10",5,0,"10, 16",'
            '"0.8, 0.8, 5","64, 64",1'
        )
    csv.write_text("\n".join(lines) + "\n")
    boxes = {"000001_01_01_010-016": [[2, 15, 20, 46, 41]], "000002_01_01_016-020": [[0, 15, 20, 46, 41]]}
    released.write_revised(csv.parent / "annotations/Revised-Train744.pkl", boxes)
    faults = Faults()
    records = read_rest("train", "Revised-Train744.pkl", tmp_path, faults)
    assert [r["volume"] for r in records] == ["000001_01_02_010-016"] and not faults
