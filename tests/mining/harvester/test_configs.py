"""The experiment over seeds: what it runs, what it makes of it; the configs that it and train_net.py run."""

import json
import math

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog

from lens_d2 import add_lens_config
from lens_d2.data.datasets.catalog import Faults
from lens_d2.data.datasets.deeplesion import read_rest
from lens_d2.data.ledger.table import LedgerRow, read_ledger, to_table, write_ledger
from lens_d2.engine import STAGES
from lens_d2.io import formats as released


@pytest.fixture
def tool(load_script):
    return load_script("tools/harvest_experiment.py")


def row(number, status):
    return LedgerRow(
        f"r{number}", "v", 2, 1.0, 1.0, 5.0, 5.0, f"l{number}", "LesionHarvester", 1, 0.5, float("nan"), "", status
    )


def test_every_seed_is_harvested_and_detected(tool, tmp_path, monkeypatch, capsys):
    calls = []

    def train(args, folder, *opts):
        calls.append((folder.relative_to(args.output).as_posix(), dict(zip(opts[::2], opts[1::2], strict=True))))
        stage = folder / ("harvest" if "DATASETS.LEDGER" not in opts else "retrain")
        stage.mkdir(parents=True)
        rows = [
            {"labels": "R_H", "R@100P": 0.4},
            {"labels": "P_H,1", "R@90P": 0.6},
            {"labels": "P_H,1^+", "R@90P": 0.5},
        ]
        (stage / "table.json").write_text(json.dumps(rows))
        ap = {"detector_lesions": 0.3, "detector_ordinary": 0.35, "detector_hnsl": 0.4}.get(folder.name)
        result = {"ledger": str(stage / "ledger.csv"), "metrics": {"p3d": {"ap": ap, "average_sensitivity": 0.5}}}
        write_ledger(stage / "ledger.csv", [to_table([row(0, "annotation"), row(1, "hard_negative")])])
        (stage / "stage.json").write_text(json.dumps({"result": result}))

    monkeypatch.setattr(tool, "train", train)
    tool.main(["--seeds", "1", "2", "--output", str(tmp_path)])
    assert [name for name, _ in calls[:4]] == [
        "seed_1", "seed_1/detector_lesions", "seed_1/detector_ordinary", "seed_1/detector_hnsl",
    ]  # fmt: skip
    assert [opts["SEED"] for _, opts in calls] == [1] * 4 + [2] * 4
    suppressed = [opts.get(tool.SUPPRESS[0]) for _, opts in calls[1:4]]
    assert suppressed == ["False", "False", "True"]
    without, *both = (opts["DATASETS.LEDGER"] for _, opts in calls[1:4])
    assert read_ledger(without)["status"].tolist() == ["annotation"]
    assert both == [str(tmp_path / "seed_1/harvest/ledger.csv")] * 2
    mean = json.loads((tmp_path / "results.json").read_text())["mean"]
    assert mean == {
        "original marks": 0.4, "P_H,1, R@90P": 0.6, "P_H,1^+, R@90P": 0.5, "gain at 90P": pytest.approx(0.1),
        "AP, lesions": 0.3, "AP, ordinary": 0.35, "AP, hnsl": 0.4, "AP, hnsl - lesions": pytest.approx(0.1),
    }  # fmt: skip
    assert "seed 2" in capsys.readouterr().out
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 9


def test_the_average_precision_of_an_evaluation_among_other_measures(tool):
    one = {"p3d": {"ap": 0.4, "sensitivity@1": 0.3}, "bbox": {"AP": 12.0}}
    assert tool.average_precision(one) == 0.4
    assert tool.average_precision({"a": one, "b": {"p3d": {"ap": 0.2}}}) == pytest.approx(0.3)
    assert math.isnan(tool.average_precision({"bbox": {"AP": 12.0}}))


@pytest.mark.parametrize("name", ["harvester.yaml", "phantom/harvester.yaml"])
def test_the_configs_name_what_there_is(repo_root, name):
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.merge_from_file(str(repo_root / "configs" / name))
    assert all(stage in STAGES for stage in cfg.STAGES)
    names = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, cfg.HARVEST.VERIFIED, cfg.HARVEST.TEST}
    assert names <= set(DatasetCatalog.list()) and cfg.HARVEST.VERIFIED in cfg.DATASETS.TRAIN
    if name == "harvester.yaml":
        tracker, keys = cfg.HARVEST.TRACKER, cfg.HARVEST
        assert (tracker.SCORE_THRESH, tracker.IOU, tracker.EXTEND, tracker.FUSE_IOU) == (0.1, 0.8, 1, 0.8)
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
