"""Whole-volume inference: equal to slice-by-slice, independent of its window, back in the file's frame."""

import copy
import gc
from itertools import permutations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Instances

from lens_d2 import add_lens_config
from lens_d2.data.mapper import SliceMapper
from lens_d2.inference import joint_afp
from lens_d2.inference.detector import build_inference
from lens_d2.inference.folded_backbone import FoldedDenseNet25D
from lens_d2.inference.multi_scale import fuse_scales
from lens_d2.inference.volume import VolumeInference
from lens_d2.modeling import selection
from lens_d2.structures.detections import FUSED


@pytest.fixture(scope="module")
def cfg(repo_root, tmp_path_factory):
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.merge_from_file(str(repo_root / "configs/phantom/lens_multi.yaml"))
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "INPUT.CACHE_DIR", str(tmp_path_factory.mktemp("cache"))]
        + ["MODEL.DENSENET.GROWTH_RATE", 4, "MODEL.DENSENET.BLOCK_CONFIG", (2, 2, 2)]
        + ["MODEL.DENSENET.OUT_CHANNELS", 16, "MODEL.AFP.CONV_DIM", 8, "MODEL.ROI_BOX_HEAD.FC_DIM", 16]
        + ["TEST.LINK_SCORE_THRESH", 0.0, "INPUT.SLICE_INTERVAL", 2.0, "INPUT.PIXEL_SPACING", 2.0]
    )
    return cfg


@pytest.fixture(scope="module")
def model(cfg):
    """Random weights, and statistics as of training, so that no batch norm is the identity."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A body of noise, 11 slices of 3 mm, stored with x, y and z reversed."""
    rng = np.random.default_rng(0)
    array = np.full((11, 96, 112), -1000, np.int16)
    array[:, 8:90, 10:100] = rng.normal(40, 60, (11, 82, 90)).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((2.5, 2.5, 3.0))
    image.SetOrigin((100.0, 120.0, -50.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, -1))
    path = str(tmp_path_factory.mktemp("scan") / "scan.nii.gz")
    sitk.WriteImage(image, path)
    return {"file_name": path, "volume": "scan", "expert": "lits", "num_slices": 11, "lesions": []}


def slice_by_slice(cfg, model, record, positions):
    """The plain way: a sample of 9 slices around every position, in native slices, through the whole network."""
    mapper = SliceMapper(cfg, is_train=False)
    volume = mapper.cache.open(record)
    found = []
    for position in positions:
        image = torch.from_numpy(mapper.read(volume, position))
        with torch.no_grad():
            found += model([{"image": image}])
    return found


@pytest.mark.parametrize(
    "slices_per_batch, together, channels, on_native_slices",
    [
        (1, 1, 0, False),
        (3, 1, 128, False),
        (5, 2, 128, False),
        (64, 64, 0, False),
        (3, 1, 0, True),
        (64, 2, 0, True),
    ],
)
def test_equal_to_slice_by_slice(
    cfg, model, scan, slices_per_batch, together, channels, on_native_slices, monkeypatch
):
    monkeypatch.setattr(joint_afp, "WINOGRAD_CHANNELS", channels)
    monkeypatch.setattr(VolumeInference, "_together", together)  # 1 on a CPU, more on a GPU
    inference = VolumeInference(cfg, model)
    inference.on_native_slices = on_native_slices
    inference.slices_per_batch = slices_per_batch
    found = []
    original = model.detect
    monkeypatch.setattr(model, "detect", lambda *args: found.extend(out := original(*args)) or out)
    inference.detect(inference.cache.open(scan))
    monkeypatch.undo()
    positions = np.arange(11) if on_native_slices else np.arange(16) * 2 / 3  # 30 mm at 2 mm
    expected = slice_by_slice(cfg, model, scan, positions)
    assert len(found) == len(expected) == len(positions)
    for ours, plain in zip(found, expected, strict=True):
        for name, instances in plain["experts"].items():
            torch.testing.assert_close(ours["experts"][name].scores, instances.scores, atol=1e-4, rtol=0)
            torch.testing.assert_close(
                ours["experts"][name].pred_boxes.tensor, instances.pred_boxes.tensor, atol=1e-2, rtol=0
            )


def test_several_scales_are_runs_of_their_own_whose_boxes_are_fused(cfg, model, scan):
    cfg = cfg.clone()
    cfg.TEST.SCALES = (1.0, 1.25)
    inference = VolumeInference(cfg, model)
    volume = inference.cache.open(scan)
    fused = inference.detect_slices(volume)
    alone = []
    for scale in cfg.TEST.SCALES:
        inference.scales = (scale,)
        alone.append(inference.detect_slices(volume))
    (height, width), (higher, wider) = (own[FUSED][0].image_size for own in alone)
    assert (higher, wider) == pytest.approx((1.25 * height, 1.25 * width), abs=1)
    assert fused[FUSED][0].image_size == (height, width)
    floor, limit = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE
    for name in fused:
        expected = fuse_scales([own[name] for own in alone], cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST, limit, floor)
        for ours, theirs in zip(fused[name], expected, strict=True):
            torch.testing.assert_close(ours.scores, theirs.scores)
            torch.testing.assert_close(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
    mined = build_inference(cfg, model, refined=False)
    assert mined.scales == (1.0,)


def test_bfloat16_gives_nearly_the_same_detections(cfg, model, scan, monkeypatch):
    found = {}
    original = model.detect
    for bf16 in (False, True):
        inference = VolumeInference(cfg, model)
        assert not inference.bf16  # off by default
        inference.bf16 = bf16
        maps = []
        monkeypatch.setattr(model, "detect", lambda f, *a, maps=maps: maps.append(f["p2"]) or original(f, *a))
        found[bf16] = inference.detect(inference.cache.open(scan))[FUSED], maps
    plain, half = found[False][1][0], found[True][1][0]
    assert half.dtype == torch.bfloat16 and plain.dtype == torch.float32
    assert (half.float() - plain).abs().max() < 0.05 * plain.abs().max()
    best = [detections.scores.max() for detections, _ in found.values()]
    np.testing.assert_allclose(*best, atol=0.02)
    assert found[True][0].boxes.dtype == np.float64


@pytest.mark.gpu
def test_a_gpu_detects_what_the_cpu_detects(cfg, model, scan, monkeypatch):
    """But for near ties, which round-off decides, in the order and in what NMS keeps of two."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    on_cpu = VolumeInference(cfg, model)
    ours = on_cpu.detect(on_cpu.cache.open(scan))
    on_gpu = VolumeInference(cfg, copy.deepcopy(model).to("cuda"))
    theirs = on_gpu.detect(on_gpu.cache.open(scan))
    assert ours.keys() == theirs.keys()
    unequal = sum(without_equal(*pair) for name in ours for pair in permutations((ours[name], theirs[name])))
    assert len(ours[FUSED]) > 20 and unequal < 0.02 * sum(map(len, (*ours.values(), *theirs.values())))


def without_equal(ours, theirs) -> int:
    """Number of 3D detections of which the others have none with the same box and score."""
    boxes = np.abs(ours.boxes[:, None] - theirs.boxes).max(axis=2) < 0.05
    scores = np.abs(ours.scores[:, None] - theirs.scores) < 1e-3
    return int((~(boxes & scores).any(axis=1)).sum())


def test_detections_leave_the_device_once_an_output(cfg, model, scan, monkeypatch):
    """Whatever the number of slices: each transfer waits for all that the device has been given to do."""
    moved = []
    original = Instances.to
    monkeypatch.setattr(Instances, "to", lambda self, *args: moved.append(self) or original(self, *args))
    inference = VolumeInference(cfg, model)
    outputs = inference.detect(inference.cache.open(scan))
    assert len(moved) == len(outputs) == 5


def test_memory_is_bounded_by_a_window_of_slices(cfg, model, scan, monkeypatch):
    """When levels are decoded, the parts of no more images are held than a batch of levels looks at."""
    inference = VolumeInference(cfg, model)
    inference.slices_per_batch = 2
    held, decode = [], FoldedDenseNet25D.decode
    earlier = {id(o) for o in gc.get_objects() if isinstance(o, torch.Tensor)}

    def count_and_decode(self, images):
        shape = images[0][0].shape
        tensors = [o for o in gc.get_objects() if isinstance(o, torch.Tensor) and id(o) not in earlier]
        held.append(len({o.untyped_storage().data_ptr() for o in tensors if o.shape == shape}))
        return decode(self, images)

    monkeypatch.setattr(FoldedDenseNet25D, "decode", count_and_decode)
    inference.detect(inference.cache.open(scan))
    assert 2 + 3 <= max(held) <= 2 + 6


def test_each_image_runs_through_the_trunk_once(cfg, model, scan, monkeypatch):
    inference = VolumeInference(cfg, model)
    inference.slices_per_batch = 4
    encoded = []
    original = FoldedDenseNet25D.encode
    monkeypatch.setattr(FoldedDenseNet25D, "encode", lambda s, x: encoded.append(len(x)) or original(s, x))
    inference.detect(inference.cache.open(scan))
    assert sum(encoded) == 16 + 2  # and what repeats beyond the ends


def test_results_have_the_evaluators_form_and_lie_in_the_file(cfg, model, scan):
    (result,) = VolumeInference(cfg, model)([scan])
    assert result["volume"] == "scan"
    assert list(result["detections"]) == [FUSED, *cfg.MODEL.LENS.EXPERTS]
    found = result["detections"][FUSED]
    assert len(found) and found.expert_scores.shape == (len(found), 4)
    assert (found.boxes >= 0).all() and (found.boxes <= [112, 96, 10, 112, 96, 10]).all()
    assert (found.boxes[:, :3] <= found.boxes[:, 3:]).all()
    assert set(found.slice_detection) == set(range(len(found)))
    for number in range(len(found)):
        own = found.boxes_of(number)
        assert (own[0, 0], own[-1, 0]) == (found.boxes[number, 2], found.boxes[number, 5])
        assert own[:, 5].max() <= found.scores[number] + 1e-9


def test_a_reversed_file_gives_the_same_findings_in_the_world(cfg, model, scan, tmp_path):
    """The same voxels stored in the order of the body are the same patient."""
    straight = sitk.DICOMOrient(sitk.ReadImage(scan["file_name"]), "LPS")
    path = str(tmp_path / "straight.nii.gz")
    sitk.WriteImage(straight, path)
    inference = VolumeInference(cfg, model)
    worlds = []
    for file_name in (scan["file_name"], path):
        volume = inference.cache.open({**scan, "file_name": file_name})
        found = inference.detect(volume)[FUSED]
        worlds.append(np.column_stack([volume.geometry.boxes3d_to_world(found.boxes), found.scores]))
    np.testing.assert_allclose(*(w[np.lexsort(w.round(3).T)] for w in worlds), atol=1e-3)


def test_real_ct_boxes_land_inside_the_volume(cfg, model, shared_dir):
    path = shared_dir / "ct/torso_3mm_30_slices.nii.gz"
    inference = VolumeInference(cfg, model)
    volume = inference.cache.open({"file_name": str(path)})
    found = inference.detect(volume)[FUSED]
    width, height, slices = volume.geometry.size
    assert len(found)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [width, height, slices - 1] * 2).all()


def test_native_slices_share_images_where_their_neighbours_meet(cfg, model, scan, monkeypatch):
    """With slices 3 mm apart, images of a sample lie 6 mm apart: each is one of another slice, too."""
    encoded = []
    original = FoldedDenseNet25D.encode
    monkeypatch.setattr(FoldedDenseNet25D, "encode", lambda self, x: encoded.append(len(x)) or original(self, x))
    inference = VolumeInference(cfg, model)
    inference.on_native_slices = True
    inference.detect(inference.cache.open(scan))
    assert sum(encoded) == 11 + 2  # and one beyond each end


@pytest.mark.parametrize("linker", ["OverlapLinker", "BoxTracker"])
def test_the_linker_of_the_config_makes_the_detections(cfg, model, scan, linker):
    own = cfg.clone()
    own.merge_from_list(["TEST.LINKER", linker, "TEST.NATIVE_SLICES", True])
    inference = VolumeInference(own, model)
    assert type(inference.linker).__name__ == linker
    found = inference.detect(inference.cache.open(scan))[FUSED]
    assert len(found) and found.expert_scores.shape == (len(found), 4)
    assert set(found.slice_detection) == set(range(len(found)))
    assert ((found.boxes[:, [2, 5]] >= 0) & (found.boxes[:, [2, 5]] <= 10)).all()


def test_a_gpus_way_of_selecting_boxes_finds_the_same(cfg, model, scan, monkeypatch):
    inference = VolumeInference(cfg, model)
    volume = inference.cache.open(scan)
    plain = inference.detect_slices(volume)
    monkeypatch.setattr(selection, "is_asynchronous", lambda device: True)
    together = inference.detect_slices(volume)
    assert sum(map(len, plain[FUSED])) > 100
    for name, slices in plain.items():
        for ours, theirs in zip(together[name], slices, strict=True):
            assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
            assert torch.equal(ours.expert_scores, theirs.expert_scores)
