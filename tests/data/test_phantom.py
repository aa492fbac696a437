"""The synthetic cohort: its files are what the datasets' readers expect, and their truth is consistent."""

import hashlib
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.data.datasets import deeplesion, lits, luna, nih_ln, register_all
from lens_d2.data.datasets.catalog import Faults, default_root
from lens_d2.data.lesion_labels import read_hand_labels, read_labels, read_ontology
from lens_d2.data.volume import read_volume
from lens_d2.io.errors import DataError
from lens_d2.io.formats import read_boxes3d, read_lens_set, read_revised
from lens_d2.phantom import cohort as cohort_module
from lens_d2.phantom import labels as phantom_labels
from lens_d2.phantom.anatomy import LABEL
from lens_d2.phantom.case import axial_grid, find_lesions, random_case, random_pose, scan_case
from lens_d2.phantom.cohort import write_cohort
from lens_d2.phantom.plan import SIZES, CohortPlan
from lens_d2.phantom.recist import measure
from lens_d2.phantom.scanner import SCANNERS, Settings, draw_settings
from lens_d2.phantom.shapes import Blob
from lens_d2.phantom.single_type import write_luna
from lens_d2.phantom.space import Canvas, Pose, ScanGrid, Waves

PLAN = CohortPlan(train=3, val=1, test=2, luna=2, lits=2, nih_ln=2, matrix=64, seed=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    write_cohort(PLAN, folder)
    return folder


@pytest.fixture(scope="module")
def truth(root) -> dict:
    return json.loads((root / "hidden_truth.json").read_text())["volumes"]


def records(module, split, root) -> list[dict]:
    faults = Faults()
    found = module.read_split(split, root, faults)
    assert not faults
    return found


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# ---------------------------------------------------------------- the universal dataset


def test_table_has_the_columns_of_the_released_one(root, shared_dir):
    released = pd.read_csv(shared_dir / "annotations/deeplesion/DL_info_sample.csv")
    ours = pd.read_csv(root / "DeepLesion/DL_info.csv")
    assert list(ours.columns) == list(released.columns)


def test_readers_read_every_split_and_patients_stay_on_one_side(root, truth):
    patients, volumes = {}, {}
    for split in ("train", "val", "test"):
        found = records(deeplesion, split, root)
        patients[split] = {r["patient"] for r in found}
        volumes |= {r["volume"]: r for r in found}
    assert all(patients.values())
    assert not any(patients[a] & patients[b] for a, b in combinations(patients, 2))
    assert volumes.keys() == {name for name, entry in truth.items() if entry["dataset"] == "deeplesion"}
    for name, record in volumes.items():
        assert record["lesions"]  # DeepLesion releases no sub-volume without a mark
        assert read_volume(record).array.shape == tuple(truth[name]["size"][::-1])


def test_marks_are_on_lesions_and_their_box_is_the_truths(root, truth):
    seen = 0
    for split in ("train", "val", "test"):
        for record in records(deeplesion, split, root):
            hidden = [x for x in truth[record["volume"]]["lesions"] if x["annotated"]]
            assert len(hidden) == len(record["lesions"])
            for lesion in record["lesions"]:
                z, *box = lesion["boxes"][0]
                near = [
                    x for x in hidden if x["key_slice"] == z and np.abs(np.subtract(x["key_box"], box)).max() < 2
                ]
                assert len(near) == 1
                assert lesion["diameter_mm"] == pytest.approx(near[0]["diameter_mm"], abs=2 * record["spacing"][0])
                seen += 1
    assert seen > 5


def test_training_marks_are_partial_and_favour_large_lesions(truth):
    entries = [e for e in truth.values() if e["dataset"] == "deeplesion"]
    lesions = [x for e in entries for x in e["lesions"]]
    assert 0.2 < np.mean([x["annotated"] for x in lesions]) < 0.9


def test_same_lesion_is_seen_again_in_other_series(truth):
    series_of = {}
    for entry in truth.values():
        for lesion in entry["lesions"]:
            series_of.setdefault(lesion["id"], set()).add(
                entry["series"] if entry["dataset"] == "deeplesion" else ""
            )
    assert max(len(series) for series in series_of.values()) > 1


def test_released_layouts_hold_the_full_truth(root, truth):
    folder = root / "DeepLesion/annotations"
    file = folder / "DeepLesion_manual_1K_test_release.pkl"
    lens = {split: read_lens_set(file, split) for split in ("val", "test")}
    for split, volumes in lens.items():
        assert volumes.keys() == {n for n, e in truth.items() if e.get("split") == split}
        for name, boxes in volumes.items():
            np.testing.assert_allclose(boxes, [x["box3d"] for x in truth[name]["lesions"]], atol=1e-6)
    attributes = pd.read_csv(folder / "lens_1k_attributes.csv")
    assert len(attributes) == sum(len(b) for v in lens.values() for b in v.values())
    sets = {f: read_revised(folder / f"Revised-{f}.pkl") for f in ("Train744", "Train100", "Test1071")}
    for volumes in sets.values():
        assert volumes
        for name, table in volumes.items():
            assert len(table) == len(truth[name]["lesions"])
    training = [{name.split("_")[0] for name in sets[f]} for f in ("Train744", "Train100")]
    assert not training[0] & training[1]
    for name, boxes in read_boxes3d(folder / "3D-Box.pkl").items():
        np.testing.assert_allclose(boxes, [x["box3d"] for x in truth[name]["lesions"]], atol=1e-6)


# ---------------------------------------------------------------- the single-type datasets


@pytest.mark.parametrize(
    ("module", "dataset", "kinds"),
    [
        (luna, "luna", {"lung_nodule"}),
        (lits, "lits", {"liver_tumour"}),
        (nih_ln, "nih_ln", {"mediastinal_node", "abdominal_node"}),
    ],
)
def test_own_type_is_fully_annotated_and_no_other(module, dataset, kinds, root, truth):
    found = {r["volume"]: r for split in ("train", "val") for r in records(module, split, root)}
    entries = {e["patient"]: e for e in truth.values() if e["dataset"] == dataset}
    assert len(found) == len(entries)
    for record in found.values():
        hidden = entries[record["patient"]]["lesions"]
        own = [x for x in hidden if x["annotated"]]
        assert {x["type"] for x in own} <= kinds
        assert len(record["lesions"]) == len(own)
        for lesion in record["lesions"]:
            centre = np.add(lesion["box3d"][:3], lesion["box3d"][3:]) / 2
            inside = [
                x
                for x in own
                if np.all(centre >= x["box3d"][:3]) and np.all(centre <= np.add(x["box3d"][3:], 0.01))
            ]
            assert len(inside) == 1  # world coordinates and reversed axes are right


def test_masks_share_the_geometry_of_their_volumes(root):
    volume = sitk.ReadImage(str(next((root / "LiTS").glob("volume-*.nii"))))
    mask = sitk.ReadImage(str(next((root / "LiTS").glob("segmentation-*.nii"))))
    assert volume.GetSize() == mask.GetSize()
    np.testing.assert_allclose(volume.GetDirection(), mask.GetDirection(), atol=1e-5)
    labels = sitk.GetArrayFromImage(mask)
    hu = sitk.GetArrayFromImage(volume)
    assert 30 < hu[labels == 1].mean() < 180  # it is the liver


# ---------------------------------------------------------------- labels


def test_labels_have_lesanets_layout(root, shared_dir):
    released = json.loads((shared_dir / "annotations/lesanet/text_mined_labels_171_and_split.json").read_text())
    ours = json.loads((root / "lesanet/text_mined_labels.json").read_text())
    assert ours.keys() == released.keys()
    rows = len(pd.read_csv(root / "DeepLesion/DL_info.csv"))
    labels = read_labels(root / "lesanet/text_mined_labels.json")
    assert all(0 <= row < rows for lesions in labels.lesions.values() for row in lesions)
    assert read_ontology(root / "lesanet/ontology.csv").keys() == set(labels.terms)
    assert read_hand_labels(root / "lesanet/hand_labeled_test_set.json")


def test_true_terms_imply_their_parents_and_exclude_their_rivals(truth):
    for entry in truth.values():
        for lesion in entry["lesions"]:
            terms = set(phantom_labels.true_terms(lesion))
            for term in terms:
                _, parents, exclusive = phantom_labels.ONTOLOGY[term]
                assert set(parents) <= terms
                assert not set(exclusive) & terms, (lesion["type"], sorted(terms))


# ---------------------------------------------------------------- writing


def test_a_scan_depends_neither_on_the_workers_nor_on_how_many_others_there_are(root, truth, tmp_path):
    write_cohort(PLAN.with_changes(train=1, test=1, luna=1, lits=1, nih_ln=1), tmp_path / "two", workers=2)
    smaller, larger = digest(tmp_path / "two"), digest(root)
    scans = [name for name in smaller if Path(name).suffix in (".raw", ".nii", ".dcm") or "/000001_" in name]
    assert len(scans) > 50
    assert all(smaller[name] == larger[name] for name in scans)
    others = json.loads((tmp_path / "two/hidden_truth.json").read_text())["volumes"]
    same = [
        name for name, entry in others.items() if entry["patient"] == "000001" or entry["dataset"] != "deeplesion"
    ]
    assert same and all(others[name] == truth[name] for name in same)
    tables = [pd.read_csv(folder / "DeepLesion/DL_info.csv") for folder in (root, tmp_path / "two")]
    one, two = (table[table.Patient_index == 1] for table in tables)
    assert len(one) and one.equals(two)


def test_another_seed_gives_another_cohort(root, tmp_path):
    write_luna(PLAN.with_changes(seed=4), tmp_path, 0)
    written, other = (next((folder / "LUNA16/subset0").glob("*.raw")) for folder in (root, tmp_path))
    assert written.name != other.name
    assert written.read_bytes() != other.read_bytes()


def test_other_folders_are_not_overwritten(tmp_path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        write_cohort(PLAN, tmp_path)
    with pytest.raises(DataError, match="no synthetic cohort"):
        write_cohort(PLAN, tmp_path, overwrite=True)
    assert (tmp_path / "precious").read_text() == "x"


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cohort_module, "_run_jobs", stop)
    with pytest.raises(KeyboardInterrupt):
        write_cohort(PLAN, tmp_path / "phantom")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change", [{"train": 0}, {"matrix": 100}, {"missing_rate": 1.0}, {"hardness": 9}, {"seed": -1}]
)
def test_senseless_plans_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        SIZES["tiny"].with_changes(**change)


# ---------------------------------------------------------------- measuring and geometry


def test_recist_of_an_ellipse():
    y, x = np.mgrid[0:40, 0:40] + 0.5
    turned = np.deg2rad(30)
    u = (x - 20) * np.cos(turned) + (y - 20) * np.sin(turned)
    v = -(x - 20) * np.sin(turned) + (y - 20) * np.cos(turned)
    cover = np.clip(0.5 + (1 - np.hypot(u / 12, v / 6)) * 8, 0, 1).astype(np.float32)
    mark = measure((slice(4, 7), slice(0, 40), slice(0, 40)), np.stack([cover * 0.4, cover, cover * 0.7]))
    assert mark.key_slice == 5
    assert mark.long_px == pytest.approx(24, abs=0.7)
    assert mark.short_px == pytest.approx(12, abs=0.7)
    long_axis, short_axis = mark.ends[1] - mark.ends[0], mark.ends[3] - mark.ends[2]
    assert abs(long_axis @ short_axis) < 0.05 * mark.long_px * mark.short_px
    assert mark.slice_boxes[:, 0].tolist() == [5, 6]
    np.testing.assert_allclose(mark.box3d(2.0)[[2, 5]], [5, 6])


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_poses_are_invertible(seed):
    rng = np.random.default_rng(seed)
    build = Waves.displacement(rng, 2.6, 210)
    pose = Pose(rng.uniform(0.92, 1.1, 3), rng.normal(0, 0.03, 3), rng.normal(0, 7, 3), rng.normal(0, 8), build)
    points = rng.uniform((-150, -110, -200), (150, 110, 170), (50, 3))
    np.testing.assert_allclose(pose.to_anatomy(pose.to_scan(points)), points, atol=0.05)


def test_a_painted_ball_has_its_volume_and_place():
    still = Pose(np.ones(3), np.zeros(3), np.zeros(3), 0.0)
    grid = ScanGrid((10, 64, 64), (2.0, 2.0, 3.0), (-63.0, -63.0, -13.5))
    canvas = Canvas(grid, still)
    ball = Blob(np.array([10.0, -6.0, 2.0]), np.full(3, 11.0))
    window = canvas.window(*ball.bounds)
    cover = canvas.coverage(canvas.evaluate(ball, window))
    assert cover.sum() * 2 * 2 * 1.5 == pytest.approx(4 / 3 * np.pi * 11**3, rel=0.04)
    index, beads = canvas.stamp(np.array([[10.0, -6.0, 2.0, 11.0]]))
    whole = np.zeros(canvas.hu.shape)
    whole[index] = beads
    assert np.abs(whole[window.index] - cover).max() < 0.12


# ---------------------------------------------------------------- anatomy


@pytest.mark.parametrize("phase", ["none", "venous"])
def test_organs_have_their_ct_numbers(phase):
    rng = np.random.default_rng(1)
    plan = SIZES["small"]
    case = random_case(rng, plan)
    pose = random_pose(rng, case.anatomy)
    chosen = draw_settings(SCANNERS["deeplesion"], rng, 1.6)
    chosen = Settings(
        **{**chosen.__dict__, "phase": phase, "strength": 1.0, "padding": None, "spacing": (3.0, 3.0, 5.0)}
    )
    grid = axial_grid(rng, plan, chosen, case, pose, 60.0, 46, (1, 1, -1))
    scan = scan_case(case, pose, grid, chosen, 0, rng, plan, labels=True)
    expected = {"liver": (57, 108), "lung": (-845, -830), "subcutaneous fat": (-105, -102), "spleen": (48, 119),
                "aorta": (42, 150), "muscle": (50, 60)}  # fmt: skip
    for organ, values in expected.items():
        measured = scan.hu[scan.organs == LABEL[organ]].mean()
        assert abs(measured - values[phase == "venous"]) < (45 if organ == "lung" else 25), organ
    assert all(f.diameter_mm > 2 for f in find_lesions(case, pose, scan))


def test_lesions_of_six_kinds_at_least_lie_in_the_body_and_apart():
    kinds = set()
    for seed in range(6):
        case = random_case(np.random.default_rng(seed), SIZES["small"], studies=2, at_least=3)
        assert len(case.lesions) >= 3 and case.mimics
        kinds |= {lesion.kind for lesion in case.lesions}
        centres = np.array([lesion.centre for lesion in case.lesions], np.float32)
        assert (case.anatomy.torso.skin(*centres.T) > 0).all()
        for one, other in combinations(case.lesions, 2):
            assert np.linalg.norm(one.centre - other.centre) > one.radius(1) + other.radius(1)
    assert len(kinds) >= 6


def test_clearance_of_no_points_is_no_clearance():
    anatomy = random_case(np.random.default_rng(0), SIZES["small"]).anatomy
    assert anatomy.clearance(np.zeros((0, 3))).shape == (0,)
    aorta = next(p.shape for p in anatomy.parts if p.organ == "aorta")
    assert anatomy.clearance(aorta[40, :3])[0] < 0


# ---------------------------------------------------------------- the guards


def test_the_guards_train_on_the_first_patients_with_their_marks_or_with_the_hidden_truth(
    root, truth, load_script
):
    guards = load_script("tools/phantom_guards.py")
    register_all(root.parent)
    try:
        every = DatasetCatalog.get(guards.UNIVERSAL)
        guards.register(patients=2)
        marked, full = (DatasetCatalog.get(name) for name in (guards.PARTIAL, guards.FULL))
        fully_labelled = [MetadataCatalog.get(name).fully_labelled for name in (guards.PARTIAL, guards.FULL)]
    finally:
        register_all(default_root())
    first_two = sorted({record["patient"] for record in every})[:2]
    assert marked == [record for record in every if record["patient"] in first_two]
    assert [record["volume"] for record in full] == [record["volume"] for record in marked]
    assert [len(record["lesions"]) for record in full] == [len(truth[r["volume"]]["lesions"]) for r in full]
    assert sum(len(record["lesions"]) for record in full) > sum(len(record["lesions"]) for record in marked)
    assert fully_labelled == [False, True]
