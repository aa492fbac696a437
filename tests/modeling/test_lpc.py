"""Lesion-Harvester's proposal classifiers: what they look at, their weights, their training, scoring."""

import numpy as np
import pytest
import torch
import torchvision
from detectron2.config import get_cfg
from helpers.blocks import write_blocks

from lens_d2 import add_lens_config
from lens_d2.data.cache import build_cache
from lens_d2.data.detection_samples import DetectionSamples
from lens_d2.data.patches import PatchGrid
from lens_d2.engine.classifier import ClassifierObjective, train_lpc
from lens_d2.inference.rescoring import load_classifier, score_proposals
from lens_d2.io.errors import DataError
from lens_d2.modeling.classifiers import ResNet3D, build_classifier, build_loss
from lens_d2.modeling.classifiers.global_local import BOX, PATCH
from lens_d2.modeling.views import CORONAL, SAGITTAL, TRANSVERSE, VOLUME

NAMES = ("GLC_MV", "GLC", "GLC_3D", "ResNet_MV", "ResNet_3D", "MLC3D", "FPR3D")


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(tmp_path / "output")
    cfg.INPUT.CACHE_DIR, cfg.INPUT.PIXEL_SPACING = str(tmp_path / "cache"), 2.0
    cfg.DATALOADER.NUM_WORKERS, cfg.SEED = 0, 3
    lpc = cfg.MODEL.LPC
    lpc.BACKBONE_WEIGHTS, lpc.WIDTH, lpc.FC_DIM, lpc.POOLER_RESOLUTION = "", 4, 8, (4, 4, 4)
    lpc.PATCH_SIZE, lpc.PATCH_SPACING = (8, 32, 32), (3.0, 2.0, 2.0)
    lpc.SCALES = ((2, 8, 8), (4, 16, 16), (8, 32, 32))
    lpc.SOLVER.IMS_PER_BATCH, lpc.SOLVER.BASE_LR, lpc.SOLVER.EPOCHS = 8, 0.01, 0
    lpc.SOLVER.OPTIMIZER, lpc.SOLVER.MAX_ITER = "AdamW", 20
    return cfg


@pytest.fixture
def blocks(tmp_path):
    """Records of volumes with bright blocks, and by sub-volume the boxes of these and of places beside them."""
    folder = tmp_path / "blocks"
    folder.mkdir()
    records = write_blocks(folder, "deeplesion", volumes=3)
    positives = {r["volume"]: np.array([lesion["box3d"] for lesion in r["lesions"]], float) for r in records}
    places = np.array([[x, 44, 0, x + 14, 56, 1] for x in (6, 24, 42, 60)], float)
    negatives = {name: places[_apart(places, boxes)] for name, boxes in positives.items()}
    return records, positives, negatives


def _apart(boxes, others):
    """(n,) bool: which boxes meet none of the others in the slice."""
    low, high = (
        np.maximum(boxes[:, None, :2], others[None, :, :2]),
        np.minimum(boxes[:, None, 3:5], others[None, :, 3:5]),
    )
    return ~(low < high).all(axis=2).any(axis=1)


# Views


@pytest.mark.parametrize("view, along, seen_as", [
    (TRANSVERSE, "z", "point"), (TRANSVERSE, "y", "column"), (TRANSVERSE, "x", "row"),
    (SAGITTAL, "z", "column"), (SAGITTAL, "y", "row"), (SAGITTAL, "x", "point"),
    (CORONAL, "z", "column"), (CORONAL, "y", "point"), (CORONAL, "x", "row"),
])  # fmt: skip
def test_a_line_through_the_middle_is_seen_from_three_sides(view, along, seen_as):
    """An odd patch has a middle voxel; the line runs along one axis through it."""
    patch = torch.zeros(1, 1, 5, 7, 9)
    line = [2, 3, 4]
    line["zyx".index(along)] = slice(None)
    patch[0, 0, line[0], line[1], line[2]] = 1
    image, _ = view(patch, torch.zeros(1, 6))
    height, width = [size for axis, size in enumerate((5, 7, 9)) if axis != view.normal]
    expected = torch.zeros(height, width)
    rows = slice(None) if seen_as == "column" else height // 2
    columns = slice(None) if seen_as == "row" else width // 2
    expected[rows, columns] = 1
    assert torch.equal(image[0, 0], expected)


def test_a_plane_between_two_voxels_is_their_mean():
    patch = torch.arange(4.0)[None, None, :, None, None].expand(1, 1, 4, 6, 6)
    assert (TRANSVERSE(patch, torch.zeros(1, 6)).image == 1.5).all()
    assert torch.equal(SAGITTAL(patch, torch.zeros(1, 6)).image[0, 0, :, 0], torch.arange(4.0))


def test_each_plane_sees_its_sides_of_the_box():
    box = torch.tensor([[1.0, 2, 3, 4, 5, 6]])
    patch = torch.zeros(1, 1, 8, 8, 8)
    assert TRANSVERSE(patch, box).boxes.tolist() == [[1, 2, 4, 5]]
    assert CORONAL(patch, box).boxes.tolist() == [[1, 3, 4, 6]]
    assert SAGITTAL(patch, box).boxes.tolist() == [[2, 3, 5, 6]]


@pytest.mark.parametrize("view", [TRANSVERSE, CORONAL, SAGITTAL, VOLUME])
def test_a_lesion_fills_its_box_at_anisotropic_spacing(view, cfg, blocks):
    """The ROI of a block holds the block's values alone; one twice as wide also what is around it."""
    records, positives, _ = blocks
    grid = PatchGrid((12, 24, 32), (1.5, 2.0, 1.0))
    lesions = positives[records[0]["volume"]][:1]
    patches, boxes = grid.crop(build_cache(cfg).open(records[0]), lesions)
    patches, boxes = torch.from_numpy(patches)[:, None], torch.from_numpy(boxes)
    half = (boxes[:, 3:] - boxes[:, :3]) / 2
    assert half.tolist() == [[14, 6, 3]]
    margin = half * torch.tensor([0.2, 0.2, 0.5])  # a slice's values end at its middle
    inner = torch.cat([boxes[:, :3] + margin, boxes[:, 3:] - margin], dim=1)
    seen = view(patches, inner)
    pooled = view.pool(seen.image, seen, (2, 3, 4))
    assert pooled.shape[2:] == tuple(
        bins for axis, bins in enumerate((2, 3, 4)) if axis != getattr(view, "normal", 3)
    )
    torch.testing.assert_close(pooled, torch.full_like(pooled, 300.0))
    seen = view(patches, torch.cat([boxes[:, :3] - half, boxes[:, 3:] + half], dim=1))
    assert view.pool(seen.image, seen, (2, 3, 4)).min() < 150


def test_pooling_a_plane_sees_coarse_maps_in_the_same_place():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    fine = torch.stack([rows, columns])[None] + 0.5
    seen = CORONAL(torch.zeros(1, 1, 32, 8, 48), torch.tensor([[10.0, 0, 6, 34, 8, 22]]))
    pooled = CORONAL.pool(fine, seen, (2, 9, 3))
    torch.testing.assert_close(pooled[0, 0, :, 0], torch.tensor([10.0, 18.0]))
    torch.testing.assert_close(pooled[0, 1, 0], torch.tensor([14.0, 22.0, 30.0]))
    torch.testing.assert_close(CORONAL.pool(torch.nn.functional.avg_pool2d(fine, 4), seen, (2, 9, 3)), pooled)


# Networks


@pytest.mark.parametrize("name", NAMES)
def test_the_interface_of_classifiers(cfg, name):
    cfg.MODEL.LPC.NAME = name
    classifier = build_classifier(cfg, "LPC")
    assert classifier.grid == PatchGrid((8, 32, 32), (3.0, 2.0, 2.0))
    boxes = torch.tensor([[10.0, 8, 2, 20, 22, 5]]).expand(3, -1)
    patches = torch.randn(3, 1, 8, 32, 32) * 300
    losses = ClassifierObjective(classifier, build_loss(cfg.MODEL.LPC), "loss_lpc")(
        {"patch": patches, "box": boxes, "is_lesion": torch.tensor([1.0, 0.0, 1.0])}
    )
    assert list(losses) == ["loss_lpc"] and 0.1 < losses["loss_lpc"] < 10
    losses["loss_lpc"].backward()
    assert all(p.grad is not None for p in classifier.parameters())
    with torch.no_grad():
        logits = classifier.eval()(patches, boxes)
        alone = classifier(patches[1:2], boxes[1:2])
    assert logits.shape == (3,)
    torch.testing.assert_close(alone, logits[1:2])


@pytest.mark.parametrize("name, region, sees_around, sees_box", [
    ("ResNet_MV", BOX, False, True), ("ResNet_3D", BOX, False, True), ("ResNet_3D", PATCH, True, False),
    ("GLC_MV", BOX, True, True), ("GLC", BOX, True, True), ("GLC_3D", BOX, True, True),
])  # fmt: skip
def test_what_of_a_patch_counts(cfg, name, region, sees_around, sees_box):
    """Pooled before the first block, what lies far from the box counts for global features alone."""
    cfg.MODEL.LPC.NAME, cfg.MODEL.LPC.RESNET_REGION, cfg.MODEL.LPC.POOL_AFTER = name, region, 0
    cfg.MODEL.LPC.PATCH_SIZE = (8, 64, 64)
    torch.manual_seed(0)
    classifier = build_classifier(cfg, "LPC").eval()
    patch, box = torch.randn(1, 1, 8, 64, 64) * 100, torch.tensor([[30.0, 30, 2, 36, 36, 6]])
    changed = patch.clone()
    changed[..., 60:] += 500
    changed[..., :60, :4] += 500
    other = torch.tensor([[22.0, 24, 2, 36, 36, 6]])
    with torch.no_grad():
        logit = classifier(patch, box)
        assert bool((classifier(changed, box) != logit).any()) == sees_around
        assert bool((classifier(patch, other) != logit).any()) == sees_box


def test_only_the_transverse_plane_counts_for_glc(cfg):
    cfg.MODEL.LPC.NAME = "GLC"
    classifier = build_classifier(cfg, "LPC").eval()
    patch, box = torch.randn(1, 1, 8, 32, 32) * 100, torch.tensor([[10.0, 8, 2, 20, 22, 5]])
    other = patch.clone()
    other[:, :, [0, 1, 2, 5, 6, 7]] += 500
    with torch.no_grad():
        assert torch.equal(classifier(patch, box), classifier(other, box))
        cfg.MODEL.LPC.NAME = "GLC_MV"
        classifier = build_classifier(cfg, "LPC").eval()
        assert not torch.equal(classifier(patch, box), classifier(other, box))


def test_paper_sized_networks_are_resnet18s(cfg, tmp_path):
    """At width 64 all six paths of GLC-MV start from the file's kernels, read as data only."""
    torch.manual_seed(1)
    resnet = torchvision.models.resnet18()
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    cfg.MODEL.LPC.WIDTH = 64
    classifier = build_classifier(cfg, "LPC")
    classifier.load_initial_weights(str(tmp_path / "resnet18.pth"))
    assert len(classifier.encoders) == 3
    for encoder in classifier.encoders:
        torch.testing.assert_close(
            encoder.trunk.conv1.weight, resnet.conv1.weight.sum(dim=1, keepdim=True), rtol=1e-5, atol=1e-6
        )
        layers = [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4]
        for block, layer in zip(encoder.trunk.blocks, layers, strict=True):
            for key, value in block.state_dict().items():
                assert torch.equal(value, layer.state_dict()[key])
        (tail,) = encoder.tails
        assert torch.equal(tail[1][1].conv2.weight, resnet.layer4[1].conv2.weight)
        assert tail[1][1].conv2.weight is not encoder.trunk.layer4[1].conv2.weight
    torch.save({"layer1": print}, tmp_path / "code.pth")
    with pytest.raises(DataError, match="code.pth"):
        classifier.load_initial_weights(str(tmp_path / "code.pth"))


def test_mlc3d_fuses_the_probabilities_of_three_networks(cfg):
    cfg.MODEL.LPC.NAME = "MLC3D"
    classifier = build_classifier(cfg, "LPC")
    patches, boxes = torch.randn(2, 1, 8, 32, 32) * 300, torch.zeros(2, 6)
    with torch.no_grad():
        each = classifier.train()(patches, boxes)
        assert each.shape == (2, 3)
        fused = classifier.eval()(patches, boxes).sigmoid()
        torch.testing.assert_close(fused, each.sigmoid() @ torch.tensor([0.3, 0.4, 0.3]))
        # What lies outside a network's scale does not reach it.
        other = patches.clone()
        other[..., :8] = other[..., 24:] = 500
        changed = (classifier.train()(other, boxes) != each).any(dim=0)
    assert changed.tolist() == [False, False, True]


def test_mlc3d_takes_the_papers_scales(cfg):
    cfg.MODEL.LPC.NAME, cfg.MODEL.LPC.SCALES = "MLC3D", ((4, 24, 24), (8, 48, 48), (16, 64, 64))
    classifier = build_classifier(cfg, "LPC").eval()
    assert classifier.grid.shape == (16, 64, 64)
    with torch.no_grad():
        assert classifier(torch.zeros(1, 1, 16, 64, 64), torch.zeros(1, 6)).shape == (1,)


@pytest.mark.parametrize("name, value", [("cross_entropy", np.log(2)), ("focal", np.log(2) / 4)])
def test_the_loss_is_the_one_that_the_config_names(cfg, name, value):
    """At a probability of 1/2; the focal loss weighs it with (1/2)^2 there."""
    cfg.MODEL.LPC.LOSS = name
    loss = build_loss(cfg.MODEL.LPC)(torch.zeros(4), torch.tensor([0.0, 1, 1, 1]))
    assert loss.item() == pytest.approx(value)
    cfg.MODEL.LPC.LOSS = "hinge"
    with pytest.raises(KeyError):
        build_loss(cfg.MODEL.LPC)


def test_roles_keep_to_their_papers(cfg):
    cfg = get_cfg()
    add_lens_config(cfg)
    fpr, lpc = cfg.MODEL.FPR, cfg.MODEL.LPC
    assert (fpr.NAME, fpr.LOSS, fpr.FP_PER_TP, fpr.KERNEL_DEPTHS) == ("FPR3D", "focal", 2.0, (1, 1, 1, 3))
    solver = fpr.SOLVER
    assert (solver.OPTIMIZER, solver.BASE_LR, solver.IMS_PER_BATCH) == ("RAdam", 2e-4, 32)
    assert (solver.EPOCHS, solver.EPOCH_STEPS) == (6, (2, 4))
    assert (lpc.NAME, lpc.LOSS, lpc.WIDTH, lpc.PATCH_SIZE) == ("GLC_MV", "cross_entropy", 64, (32, 128, 128))
    assert set(fpr) - set(lpc) == {"TP_IOU", "FP_IOU", "FP_SCORE_THRESH", "FP_SCORE_POWER", "COMBINE"}


def test_depth_shrinks_where_the_config_says():
    trunk = ResNet3D(4, (3, 3, 3, 3), (1, 2, 2, 2)).eval()
    with torch.no_grad():
        shapes = [tuple(output.shape[2:]) for output in trunk(torch.zeros(1, 1, 16, 64, 64))]
    assert shapes == [(16, 16, 16), (8, 8, 8), (4, 4, 4), (2, 2, 2)]


# Training and use


def test_samples_of_proposals_know_what_they_are(blocks):
    records, positives, negatives = blocks
    first, second, third = (r["volume"] for r in records)
    samples = DetectionSamples.from_proposals(
        records, {second: positives[second]}, {second: [], third: negatives[third]}
    )
    others = len(negatives[third])
    assert samples.record.tolist() == [1, 1] + [2] * others
    assert samples.is_lesion.tolist() == [True, True] + [False] * others
    np.testing.assert_array_equal(samples.boxes[:2], positives[second])
    with pytest.raises(DataError, match="0 true and"):
        DetectionSamples.from_proposals(records, {}, negatives)


def test_it_learns_to_tell_blocks_from_nothing(cfg, blocks):
    records, positives, negatives = blocks
    cfg.MODEL.LPC.WEIGHTS = train_lpc(cfg, records, positives, negatives)
    classifier = load_classifier(cfg, "LPC")
    of_lesions = dict(score_proposals(cfg, classifier, records, positives))
    assert list(of_lesions) == [r["volume"] for r in records]
    of_others = dict(
        score_proposals(cfg, classifier, records[:2], {records[0]["volume"]: np.zeros((0, 6)), **negatives})
    )
    assert min(scores.min() for scores in of_lesions.values()) > 0.5
    assert max(scores.max() for scores in of_others.values()) < 0.5
    assert [scores.shape for _, scores in score_proposals(cfg, classifier, records, {})] == [(0,)] * 3


def test_an_interrupted_training_ends_as_an_uninterrupted_one(cfg, blocks, tmp_path):
    cfg.MODEL.LPC.SOLVER.MAX_ITER, cfg.MODEL.LPC.SOLVER.CHECKPOINT_PERIOD = 4, 2
    whole = torch.load(train_lpc(cfg, *blocks), weights_only=True)["model"]
    folder = tmp_path / "output" / "lpc"
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    path = train_lpc(cfg, *blocks, resume=True)
    resumed = torch.load(path, weights_only=True)["model"]
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())
    # The next round goes on from these weights, in a folder of its own.
    cfg.OUTPUT_DIR, cfg.MODEL.LPC.SOLVER.MAX_ITER, cfg.MODEL.LPC.SOLVER.BASE_LR = str(tmp_path / "next"), 1, 0.0
    tuned = torch.load(train_lpc(cfg, *blocks, start=path), weights_only=True)["model"]
    assert torch.equal(tuned["score.weight"], whole["score.weight"])
