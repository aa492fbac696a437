"""docs/add_dataset.md as it stands: its reader, its configuration, its commands."""

import csv
import logging
import re
import shlex
import sys

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import setup_logger
from helpers.scan_files import make_affine, write_volume

from lens_d2.commands import main
from lens_d2.data.datasets.catalog import DATASETS, READER, Faults, import_readers
from lens_d2.io.errors import DataError

AFFINE = make_affine((2, 2, 3))
# What makes it small. The other datasets of the configuration are not here: the page's own takes their place.
SMALL = [
    "MODEL.DENSENET.GROWTH_RATE",
    "4",
    "MODEL.DENSENET.BLOCK_CONFIG",
    "(2, 2, 2)",
    "MODEL.DENSENET.WEIGHTS",
    "",
]
SMALL += ["MODEL.DENSENET.INIT_FEATURES", "8", "MODEL.DENSENET.OUT_CHANNELS", "16", "MODEL.AFP.CONV_DIM", "8"]
SMALL += [
    "MODEL.DENSENET.WEIGHTS",
    "",
    "MODEL.ROI_BOX_HEAD.FC_DIM",
    "16",
    "INPUT.PIXEL_SPACING",
    "2.0",
    "MODEL.DEVICE",
    "cpu",
]
TRAIN = ["DATASETS.TRAIN", "('kits_train',)", "DATALOADER.NUM_WORKERS", "0", "TEST.OVERLAYS", "0"]
TRAIN += ["SOLVER.EPOCHS", "0", "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()"]


def block(page: str, language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)[number]


def write_case(folder, seed):
    rng = np.random.default_rng(seed)
    ct = np.full((8, 64, 80), -1000, np.int16)
    ct[:, 4:60, 4:76] = rng.normal(40, 20, (8, 56, 72))
    mask = np.zeros_like(ct)
    mask[:, 20:50, 10:40], mask[3:6, 30:42, 20:34] = 1, 2
    ct[mask == 2] = 300
    folder.mkdir(parents=True)
    write_volume(folder / "imaging.nii.gz", ct, AFFINE)
    write_volume(folder / "segmentation.nii.gz", mask, AFFINE)


@pytest.fixture
def page(repo_root, tmp_path, monkeypatch):
    text = (repo_root / "docs/add_dataset.md").read_text()
    for case in range(5):
        write_case(tmp_path / f"data/KiTS/case_{case:05d}", case)
    (tmp_path / "kits.py").write_text(block(text, "python"))
    (tmp_path / "kits.yaml").write_text(block(text, "yaml"))
    (tmp_path / "configs").symlink_to(repo_root / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    loggers = [logging.getLogger(name) for name in ("", "lens_d2", "detectron2", "fvcore")]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    yield text
    for logger, (handlers, propagate) in zip(loggers, before, strict=True):  # theirs write to what is closed now
        logger.handlers[:], logger.propagate = handlers, propagate
    setup_logger.cache_clear()
    for name in ("kits_train", "kits_val", "clinic_train", "clinic_val"):
        DATASETS.pop(name, None)
        for catalog in (DatasetCatalog, MetadataCatalog):
            for each in {name, f"phantom_{name}"} & set(catalog.list()):
                catalog.remove(each)
    for module in [module for module in sys.modules if module.startswith((f"{READER}kits", f"{READER}clinic"))]:
        del sys.modules[module]


def test_the_page(page, tmp_path, capsys):
    prepare, train, predict = (shlex.split(line) for line in block(page, "bash").splitlines())
    assert main(["prepare", *prepare[2:], "--workers", "2", "kits_train", "kits_val"]) == 0
    assert "kits_train: 4 sub-volumes ready, 0 left out" in capsys.readouterr().out
    (lesion,) = DatasetCatalog.get("kits_val")[0]["lesions"]
    assert lesion["box3d"] == [20, 30, 3, 34, 42, 5]
    main(["train", *train[2:], *TRAIN, *SMALL])
    assert (tmp_path / "output/lens_kits/inference/kits_val/metrics.json").is_file()
    (tmp_path / "case.nii.gz").symlink_to(tmp_path / "data/KiTS/case_00000/imaging.nii.gz")
    assert main(["predict", *predict[2:-3], "--score-threshold", "0", *predict[-3:], *TRAIN, *SMALL]) == 0
    with open(tmp_path / "output/case/detections.csv") as file:
        assert "score_kits" in next(csv.reader(file))

    look = shlex.split(block(page, "bash", 1))
    assert main(["visualize", *look[2:]]) == 0 and list((tmp_path / "output/kits").glob("*.png"))

    # A detector of the other experts: this one without the new expert.
    further = shlex.split(block(page, "bash", 2).replace("\\\n", ""))
    finished = torch.load(tmp_path / "output/lens_kits/model_final.pth", weights_only=True)["model"]
    before = {name: value for name, value in finished.items() if ".kits." not in name}
    (tmp_path / "output/lens_multi").mkdir()
    torch.save({"model": before}, tmp_path / "output/lens_multi/model_final.pth")
    main(["train", *further[2:], *TRAIN, *SMALL])
    after = torch.load(tmp_path / "output/with_kits/model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert after.keys() == finished.keys() != before.keys()

    (tmp_path / "kits.py").unlink()  # prediction opens no dataset
    words = [
        "predict",
        *predict[2:-3],
        *predict[-3:],
        "DATASETS.READERS",
        "()",
        "DATASETS.TRAIN",
        "('kits_train',)",
    ]
    for name in ("kits_train", "kits_val"):
        DatasetCatalog.remove(name)
    assert main([*words, *SMALL]) == 0


def test_boxes_instead_of_masks(page, tmp_path):
    """Of the same lesion as that of the masks, given in LPS mm."""
    folder = tmp_path / "data/Clinic"
    folder.mkdir()
    rows = ["volume,lps_x_min_mm,lps_y_min_mm,lps_z_min_mm,lps_x_max_mm,lps_y_max_mm,lps_z_max_mm"]
    for case in range(5):
        name = f"clinic_{case:05d}"
        (folder / f"{name}.nii.gz").symlink_to(tmp_path / f"data/KiTS/case_{case:05d}/imaging.nii.gz")
        corners = np.array([[19.5, 29.5, 2.5, 1], [33.5, 41.5, 5.5, 1]]) @ AFFINE.T  # outer faces
        low, high = corners[:, :3].min(axis=0), corners[:, :3].max(axis=0)
        rows.append(",".join([name, *map(str, [*low, *high])]))
    (folder / "lesions.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "clinic.py").write_text(block(page, "python", 1))
    import_readers([tmp_path / "clinic.py", tmp_path / "kits.py"])
    (ours,), (masks,) = (DatasetCatalog.get(name)[0]["lesions"] for name in ("clinic_val", "kits_val"))
    np.testing.assert_allclose(ours["box3d"], masks["box3d"], atol=1e-4)
    np.testing.assert_allclose(ours["boxes"], masks["boxes"], atol=1e-4)
    assert sum(len(DatasetCatalog.get(f"clinic_{split}")) for split in ("train", "val")) == 5
    boxes = (folder / "lesions.csv").read_text()
    scored = (
        boxes.replace("_z_max_mm\n", "_z_max_mm,score\n", 1).replace("\n", ",0.9\n").replace("score,0.9", "score")
    )
    (folder / "lesions.csv").write_text(scored)
    with pytest.raises(DataError, match="lesions.csv: holds boxes with scores"):
        list(DATASETS["clinic_val"].read(tmp_path / "data", Faults()))
    healthy = boxes + "clinic_healthy,,,,,,\n"
    (folder / "clinic_healthy.nii.gz").symlink_to(folder / "clinic_00000.nii.gz")
    (folder / "lesions.csv").write_text(healthy)
    records = [
        record
        for split in ("train", "val")
        for record in DATASETS[f"clinic_{split}"].read(tmp_path / "data", Faults())
    ]
    assert {record["volume"]: len(record["lesions"]) for record in records}["clinic_healthy"] == 0
    (folder / "lesions.csv").write_text(boxes)
    (folder / "clinic_00003.nii.gz").unlink()
    faults = Faults()
    readers = [DATASETS[f"clinic_{split}"].read for split in ("train", "val")]
    assert sum(len(list(read(tmp_path / "data", faults))) for read in readers) == 4
    assert list(faults) == ["clinic_00003"] and "no scan clinic_00003" in str(faults["clinic_00003"])


def test_readers_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match="absent.py: no such Python file"):
        import_readers([tmp_path / "absent.py"])
    (tmp_path / "wrong.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(DataError, match="wrong.py: cannot be imported: ModuleNotFoundError"):
        import_readers([tmp_path / "wrong.py"])
