"""False-positive reduction: inflation, pooling, which detections it learns from, learning, rescoring."""

import dataclasses

import numpy as np
import pytest
import torch
import torchvision
from detectron2.config import get_cfg
from helpers.blocks import write_blocks
from hypothesis import given
from hypothesis import strategies as st

from lens_d2 import add_lens_config
from lens_d2.data.cache import build_cache
from lens_d2.data.detection_samples import (
    DetectionSamples,
    PatchDataset,
    Verdict,
    judge_detections,
    key_slice_iou,
    mirror_boxes,
)
from lens_d2.data.patches import PatchGrid
from lens_d2.data.sampler import EpochBatchSampler, SampleIndex
from lens_d2.engine.classifier import train_fpr
from lens_d2.inference.rescoring import (
    RescoredInference,
    build_inference,
    classify,
    load_classifier,
    mean_log_odds,
    rescore,
)
from lens_d2.inference.volume import VolumeInference
from lens_d2.io.errors import DataError
from lens_d2.modeling import build_classifier
from lens_d2.modeling.classifiers import ResNet3D, load_resnet18_weights
from lens_d2.modeling.classifiers.roi_align3d import roi_align3d
from lens_d2.structures.detections import VolumeDetections


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(tmp_path / "output")
    cfg.INPUT.CACHE_DIR, cfg.INPUT.PIXEL_SPACING = str(tmp_path / "cache"), 2.0
    cfg.DATALOADER.NUM_WORKERS, cfg.SEED = 0, 3
    fpr = cfg.MODEL.FPR
    fpr.BACKBONE_WEIGHTS, fpr.WIDTH, fpr.FC_DIM = "", 4, 8
    fpr.PATCH_SIZE, fpr.PATCH_SPACING = (4, 24, 24), (3.0, 2.0, 2.0)
    fpr.SOLVER.IMS_PER_BATCH, fpr.SOLVER.BASE_LR, fpr.SOLVER.EPOCHS = 8, 0.005, 0
    fpr.SOLVER.OPTIMIZER, fpr.SOLVER.MAX_ITER = "AdamW", 30
    return cfg


# Inflation


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def test_an_inflated_network_gives_for_a_constant_volume_what_the_2d_one_gives(tmp_path, resnet18):
    torch.save(resnet18.state_dict(), tmp_path / "resnet18.pth")
    trunk = ResNet3D().eval()
    load_resnet18_weights(trunk, str(tmp_path / "resnet18.pth"))
    picture = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        outputs = trunk(picture[:, :, None].expand(-1, -1, 5, -1, -1))
        flat = resnet18.maxpool(resnet18.relu(resnet18.bn1(resnet18.conv1(picture.expand(-1, 3, -1, -1)))))
        for number, output in enumerate(outputs):
            flat = getattr(resnet18, f"layer{number + 1}")(flat)
            assert output.shape == (2, 64 * 2**number, 5, 16 >> number, 16 >> number)
            torch.testing.assert_close(output, flat[:, :, None].expand_as(output), rtol=1e-4, atol=1e-4)


def test_kernels_reach_along_z_in_block_4_alone():
    trunk = ResNet3D(4).eval()
    kernels = {name: m.kernel_size for name, m in trunk.named_modules() if isinstance(m, torch.nn.Conv3d)}
    assert kernels["conv1"] == (1, 7, 7) and kernels["layer3.1.conv2"] == (1, 3, 3)
    assert kernels["layer4.0.conv1"] == (3, 3, 3) and kernels["layer4.0.downsample.0"] == (1, 1, 1)
    volume = torch.randn(1, 1, 5, 32, 32)
    other = volume.clone()
    other[:, :, 2] += 1
    with torch.no_grad():
        changed = [
            (a != b).any(dim=(0, 1, 3, 4)).tolist() for a, b in zip(trunk(volume), trunk(other), strict=True)
        ]
    assert changed[:3] == [[False, False, True, False, False]] * 3 and changed[3] == [True] * 5


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(DataError, match="another architecture.*shape"):
        load_resnet18_weights(ResNet3D(8), str(tmp_path / "resnet18.pth"))
    torch.save({"features.conv0.weight": torch.zeros(1)}, tmp_path / "densenet.pth")
    with pytest.raises(DataError, match="no key is one of"):
        load_resnet18_weights(ResNet3D(8), str(tmp_path / "densenet.pth"))


# ROI pooling


def test_pooled_values_lie_at_the_middles_of_the_bins():
    """Of a map that holds its own coordinates (patch voxels), linear pooling gives the bins' middles."""
    depth, height, width = 6, 8, 16
    z, y, x = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), torch.arange(16.0), indexing="ij")
    features = torch.stack([x, y, z])[None] + 0.5
    box = torch.tensor([[2.0, 1.0, 1.5, 14.0, 7.0, 4.5]])
    pooled = roi_align3d(features, box, (depth, height, width), (3, 2, 4))
    assert pooled.shape == (1, 3, 3, 2, 4)
    torch.testing.assert_close(pooled[0, 0, 0, 0], torch.tensor([3.5, 6.5, 9.5, 12.5]))
    torch.testing.assert_close(pooled[0, 1, 0, :, 0], torch.tensor([2.5, 5.5]))
    torch.testing.assert_close(pooled[0, 2, :, 0, 0], torch.tensor([2.0, 3.0, 4.0]))


def test_pooling_sees_coarse_maps_in_the_same_place():
    """A map at stride 2 and one at stride 1 of the same linear picture pool to the same values inside."""
    x = torch.arange(32.0)[None, None, None, None].expand(1, 1, 4, 32, 32) + 0.5
    coarse = torch.nn.functional.avg_pool3d(x, (1, 2, 2))
    box = torch.tensor([[6.0, 4.0, 1.0, 26.0, 20.0, 3.0]])
    fine = roi_align3d(x, box, (4, 32, 32), (2, 3, 3))
    torch.testing.assert_close(roi_align3d(coarse, box, (4, 32, 32), (2, 3, 3)), fine)


def test_each_sample_is_pooled_from_its_own_box():
    features = torch.zeros(2, 1, 2, 8, 8)
    features[0, :, :, :, :4], features[1, :, :, :, 4:] = 1.0, 2.0
    boxes = torch.tensor([[0.0, 0, 0, 3, 8, 2], [0.0, 0, 0, 3, 8, 2]])
    assert roi_align3d(features, boxes, (2, 8, 8), (1, 1, 1)).flatten().tolist() == [1.0, 0.0]


def test_the_interface_of_classifiers(cfg):
    classifier = build_classifier(cfg)
    assert classifier.grid == PatchGrid((4, 24, 24), (3.0, 2.0, 2.0))
    boxes = torch.tensor([[2.0, 2, 0, 20, 20, 3]]).expand(3, -1)
    logits = classifier(torch.randn(3, 1, 4, 24, 24) * 300, boxes)
    assert logits.shape == (3,)
    logits.sum().backward()
    assert all(p.grad is not None for p in classifier.parameters())
    with pytest.raises(KeyError):
        build_classifier(cfg, "Oracle")


# Which detections are samples


def detections_of(slice_boxes, owner):
    """Detections with the given slice boxes (z, x1, y1, x2, y2)."""
    slice_boxes = np.array([[*box, 0.5] for box in slice_boxes], dtype=float)
    owner = np.array(owner)
    boxes = []
    for i in range(owner.max() + 1):
        mine = slice_boxes[owner == i]
        low, high = mine[:, [1, 2, 0]].min(axis=0), mine[:, [3, 4, 0]].max(axis=0)
        boxes.append([*low, *high])
    return VolumeDetections(np.array(boxes), np.full(len(boxes), 0.5), slice_boxes, owner)


def lesion(status, *boxes):
    return {"id": "v/0", "status": status, "boxes": [list(box) for box in boxes]}


def test_key_slice_iou_is_that_of_the_same_slice_only():
    found = detections_of([[3, 0, 0, 10, 10], [4, 0, 0, 10, 5], [4, 50, 50, 60, 60]], [0, 0, 1])
    mark = lesion("annotation", [4, 0, 0, 10, 10])
    np.testing.assert_allclose(key_slice_iou(found, [mark]), [0.5, 0.0])
    np.testing.assert_allclose(key_slice_iou(found, [lesion("mined", [5, 0, 0, 10, 10])]), [0.0, 0.0])
    np.testing.assert_allclose(key_slice_iou(found, []), [0.0, 0.0])


@pytest.mark.parametrize(
    "status, overlap, verdict",
    [
        ("annotation", 0.6, Verdict.TRUE_POSITIVE),
        ("mined", 0.6, Verdict.TRUE_POSITIVE),
        ("accepted", 0.6, Verdict.TRUE_POSITIVE),
        ("uncertain", 0.6, Verdict.UNUSED),
        ("unsure", 0.6, Verdict.UNUSED),
        ("hard_negative", 0.6, Verdict.FALSE_POSITIVE),
        ("annotation", 0.5, Verdict.UNUSED),
        ("annotation", 0.3, Verdict.UNUSED),
        ("uncertain", 0.3, Verdict.UNUSED),
        ("annotation", 0.25, Verdict.FALSE_POSITIVE),
        ("uncertain", 0.25, Verdict.FALSE_POSITIVE),
    ],
)
def test_the_rule_of_true_and_false_positives(status, overlap, verdict):
    found = detections_of([[4, 0, 0, 10, 10 * overlap]], [0])
    assert judge_detections(found, [lesion(status, [4, 0, 0, 10, 10])]) == [verdict]


def test_a_lesion_beside_an_uncertain_region_is_true():
    found = detections_of([[4, 0, 0, 10, 10]], [0])
    lesions = [lesion("uncertain", [4, 0, 0, 10, 10]), lesion("mined", [4, 0, 0, 10, 9])]
    assert judge_detections(found, lesions) == [Verdict.TRUE_POSITIVE]


def test_samples_come_from_volumes_with_detections_and_need_both_kinds():
    records = [
        {"volume": "a", "lesions": [lesion("annotation", [4, 0, 0, 10, 10])]},
        {"volume": "b", "lesions": []},
        {"volume": "c", "lesions": []},
    ]
    found = detections_of([[4, 0, 0, 10, 10], [4, 0, 0, 10, 4], [4, 50, 50, 60, 60]], [0, 1, 2])
    samples = DetectionSamples.from_detections(records, {"a": found, "b": found})
    assert samples.record.tolist() == [0, 0, 1, 1, 1] and samples.is_lesion.tolist() == [True] + [False] * 4
    np.testing.assert_array_equal(samples.boxes[1], [50, 50, 4, 60, 60, 4])
    with pytest.raises(DataError, match="0 true and 3 false"):
        DetectionSamples.from_detections(records, {"b": found})
    with pytest.raises(DataError, match="0 true and 0 false"):
        DetectionSamples.from_detections(records, {})


@pytest.mark.parametrize("false", [2, 50])
def test_an_epoch_has_two_false_positives_for_each_true_one(false):
    is_lesion = np.repeat([True, False], [10, false])
    count = len(is_lesion)
    samples = DetectionSamples(np.zeros(count, int), np.zeros((count, 6)), is_lesion, np.ones(count))
    drawn = samples.draw(np.random.default_rng(0), 2.0)
    assert len(drawn) == 30 and sorted(drawn[drawn < 10]) == list(range(10))
    repeats = np.bincount(drawn[drawn >= 10] - 10, minlength=false)
    assert repeats.sum() == 20 and repeats.max() == (1 if false == 50 else 10)


def scored(scores):
    """Detections of one slice box each, apart from one another."""
    found = detections_of([[4, 40 * i, 0, 40 * i + 10, 10] for i in range(len(scores))], np.arange(len(scores)))
    found.scores = np.array(scores)
    return found


def test_false_positives_below_the_score_threshold_are_not_trained_on():
    records = [{"volume": "a", "lesions": [lesion("annotation", [4, 0, 0, 10, 10])]}]
    detections = {"a": scored([0.02, 0.02, 0.1, 0.7])}
    samples = DetectionSamples.from_detections(records, detections, fp_score_thresh=0.1)
    assert samples.is_lesion.tolist() == [True, False, False]  # a true one stays, however low it scores
    assert samples.boxes[:, 0].tolist() == [0, 80, 120] and samples.weight.tolist() == [1, 1, 1]


@pytest.mark.parametrize("power, share", [(0.0, 1 / 4), (1.0, 1 / 2), (2.0, 3 / 4)])
def test_false_positives_are_drawn_by_the_power_of_their_score(power, share):
    """One of score 0.6 among three of 0.2: its share of the first draws."""
    records = [{"volume": "a", "lesions": [lesion("annotation", [4, 0, 0, 10, 10])]}]
    found = scored([0.02, 0.2, 0.2, 0.2, 0.6])
    samples = DetectionSamples.from_detections(records, {"a": found}, fp_score_power=power)
    draws = np.concatenate([samples.draw(np.random.default_rng(seed), 1.0) for seed in range(400)])
    assert np.isin(draws, [0, 1, 2, 3, 4]).all() and (draws == 0).sum() == 400
    assert (draws == 4).sum() / 400 == pytest.approx(share, abs=0.06)
    assert sorted(samples.draw(np.random.default_rng(0), 4.0)) == [0, 1, 2, 3, 4]  # none twice


def test_how_samples_are_drawn_says_nothing_of_what_is_rescored(cfg, blocks):
    """Rescoring takes every detection, in the order in which they are."""
    records, detections = blocks
    cfg.MODEL.FPR.FP_SCORE_THRESH, cfg.MODEL.FPR.FP_SCORE_POWER = 0.9, 2.0
    outputs = [{"volume": r["volume"], "detections": {"fused": detections[r["volume"]]}} for r in records]
    wrapped = RescoredInference(cfg, lambda some: outputs, build_classifier(cfg).eval())
    for record, output in zip(records, wrapped(records), strict=True):
        np.testing.assert_array_equal(output["detections"]["fused"].boxes, detections[record["volume"]].boxes)


def test_lens_takes_another_classifier_by_config_alone(cfg, blocks):
    records, detections = blocks
    fpr = cfg.MODEL.FPR
    fpr.NAME, fpr.LOSS, fpr.SOLVER.MAX_ITER = "GLC", "cross_entropy", 2
    fpr.WEIGHTS = train_fpr(cfg, records, detections)
    assert type(load_classifier(cfg)).__name__ == "GlobalLocalClassifier"


def test_batches_are_a_function_of_their_number():
    def stream(start=0):
        sampler = EpochBatchSampler(lambda rng: rng.permutation(10), 4, seed=1)
        sampler.start_iter = start
        assert sampler.epoch_length == 2
        batches = iter(sampler)
        return [next(batches) for _ in range(5)]

    assert stream() == stream() and stream(2) == stream()[2:] + stream(5)[:2]
    assert all(len({index.sample for index in sum(stream()[i : i + 2], [])}) == 8 for i in (0, 2))
    few = EpochBatchSampler(lambda rng: np.array([3, 4]), 5, seed=1)
    assert [index.sample for index in next(iter(few))] == [3, 4, 3, 4, 3]


# Training and use


@pytest.fixture
def blocks(tmp_path):
    """Records of volumes with bright blocks as lesions, and detections of these and of dark places."""
    folder = tmp_path / "blocks"
    folder.mkdir()
    records, detections = write_blocks(folder, "deeplesion", volumes=3), {}
    for record in records:
        boxes = [lesion["boxes"] for lesion in record["lesions"]]
        boxes += [[[z, x, 44, x + 14, 56] for z in (0, 1)] for x in (6, 24, 42, 60)]
        boxes = [b for b in boxes if b in boxes[:2] or not _meets(b, boxes[:2])]
        owner = np.repeat(np.arange(len(boxes)), [len(b) for b in boxes])
        detections[record["volume"]] = detections_of(sum(boxes, []), owner)
    return records, detections


def _meets(boxes, others):
    return any(
        a[0] == b[0] and a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
        for a in boxes
        for other in others
        for b in other
    )


def test_mirrored_samples_keep_box_and_lesion_together(cfg, blocks):
    records, detections = blocks
    samples = DetectionSamples.from_detections(records, detections)
    dataset = PatchDataset(
        records, samples, build_cache(cfg), PatchGrid((4, 24, 24), (3.0, 2.0, 2.0)), (6, 6, 3), True
    )
    number, places = int(np.flatnonzero(samples.is_lesion)[0]), set()
    for seed in range(8):
        sample = dataset[SampleIndex(number, seed)]
        inside = np.argwhere(sample["patch"][0].numpy() > 200)
        middle = inside[:, 2].mean() + 0.5
        assert sample["box"][0] - 1 < middle < sample["box"][3] + 1 and sample["is_lesion"] == 1
        places.add(round(middle))
    assert len(places) > 2
    np.testing.assert_array_equal(
        mirror_boxes(np.array([[1, 2, 3, 4, 5, 6.0]]), dataset.grid), [[20, 2, 3, 23, 5, 6]]
    )


def test_it_learns_to_tell_blocks_from_nothing_and_resumes(cfg, blocks, tmp_path):
    records, detections = blocks
    path = train_fpr(cfg, records, detections)
    cfg.MODEL.FPR.WEIGHTS = path
    classifier, cache = load_classifier(cfg), build_cache(cfg)
    for record in records:
        found = detections[record["volume"]]
        scores = classify(classifier, cache.open(record), found.boxes, batch_size=3)
        assert scores.shape == (len(found),) and scores[:2].min() > 0.5 > scores[2:].max()
    before = torch.load(path, weights_only=True)
    assert before["iteration"] == 29
    # Finished: nothing is trained again. Longer: goes on after iteration 29.
    assert train_fpr(cfg, records, detections, resume=True) == path
    assert torch.load(path, weights_only=True)["iteration"] == 29
    cfg.MODEL.FPR.SOLVER.MAX_ITER = 32
    train_fpr(cfg, records, detections, resume=True)
    after = torch.load(path, weights_only=True)
    assert after["iteration"] == 31
    steps = {int(state["step"]) for state in after["trainer"]["optimizer"]["state"].values()}
    assert steps == {32}


def test_an_interrupted_training_ends_as_an_uninterrupted_one(cfg, blocks, tmp_path):
    records, detections = blocks
    cfg.MODEL.FPR.SOLVER.MAX_ITER, cfg.MODEL.FPR.SOLVER.CHECKPOINT_PERIOD = 4, 2
    whole = torch.load(train_fpr(cfg, records, detections), weights_only=True)["model"]
    folder = tmp_path / "output" / "fpr"
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    resumed = torch.load(train_fpr(cfg, records, detections, resume=True), weights_only=True)["model"]
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, msg=key)


def test_final_scores_are_means(blocks):
    _, detections = blocks
    found = next(iter(detections.values()))
    fpr = np.linspace(0, 1, len(found))
    again = rescore(found, fpr)
    np.testing.assert_allclose(again.scores, (0.5 + fpr) / 2)
    np.testing.assert_allclose(again.slice_boxes[:, 5], (0.5 + fpr[found.slice_detection]) / 2)
    np.testing.assert_array_equal(again.fpr_scores, fpr)
    np.testing.assert_array_equal(found.scores, 0.5)
    assert len(rescore(VolumeDetections(), np.zeros(0))) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_mean_of_log_odds(pairs):
    """Odds multiply, and the final ones are the root; what is certain stays a probability."""
    scores, fpr = np.array(pairs).T
    final = mean_log_odds(scores, fpr)
    assert ((final > 0) & (final < 1)).all()
    sure = np.clip((scores, fpr), 1e-6, 1 - 1e-6)
    np.testing.assert_allclose(final / (1 - final), np.sqrt(np.prod(sure / (1 - sure), axis=0)), rtol=1e-6)


def test_log_odds_tell_scores_near_one_apart(cfg, blocks):
    """Odds of 999 against 99 weigh more than a classifier's 0.5 against 0.6; in the mean of scores they do not."""
    found = next(iter(blocks[1].values()))
    scores = np.where(np.arange(len(found)) == 0, 0.999, 0.99)
    fpr = np.where(np.arange(len(found)) == 0, 0.5, 0.6)
    found = dataclasses.replace(found, scores=scores)
    assert rescore(found, fpr, mean_log_odds).scores.argmax() == 0
    assert rescore(found, fpr).scores.argmax() > 0
    cfg.MODEL.FPR.COMBINE = "median"
    with pytest.raises(ValueError, match="MODEL.FPR.COMBINE is none of mean, mean_log_odds: 'median'"):
        RescoredInference(cfg, lambda some: [], build_classifier(cfg))


def test_inference_with_rescoring_answers_as_without(cfg, blocks):
    records, detections = blocks

    def inference(some):
        names = [record["volume"] for record in some]
        both = [{"fused": detections[name], "luna": VolumeDetections()} for name in names]
        return [{"volume": name, "detections": found} for name, found in zip(names, both, strict=True)]

    wrapped = RescoredInference(cfg, inference, build_classifier(cfg).eval())
    for record, output in zip(records, wrapped(records), strict=True):
        plain = detections[record["volume"]]
        assert output["volume"] == record["volume"] and set(output["detections"]) == {"fused", "luna"}
        fused = output["detections"]["fused"]
        np.testing.assert_array_equal(fused.boxes, plain.boxes)
        np.testing.assert_allclose(fused.scores, (plain.scores + fused.fpr_scores) / 2)
        assert output["detections"]["luna"].fpr_scores is None


def test_evaluation_rescores_where_a_classifier_is_configured(cfg, tmp_path):
    detector = torch.nn.Identity()
    assert isinstance(build_inference(cfg, detector), VolumeInference)
    torch.save({"model": build_classifier(cfg).state_dict()}, tmp_path / "fpr.pth")
    cfg.MODEL.FPR.WEIGHTS = str(tmp_path / "fpr.pth")
    cfg.MODEL.LENS.OUTPUT = "luna"
    rescored = build_inference(cfg, detector)
    assert isinstance(rescored.inference, VolumeInference) and rescored.outputs == ("luna",)
    assert not rescored.classifier.training


def test_a_checkpoint_of_another_architecture_is_refused(cfg, tmp_path):
    cfg.MODEL.FPR.WEIGHTS = str(tmp_path / "wide.pth")
    torch.save({"model": build_classifier(cfg).state_dict()}, cfg.MODEL.FPR.WEIGHTS)
    cfg.MODEL.FPR.WIDTH = 8
    with pytest.raises(DataError, match="wide.pth.*another architecture"):
        load_classifier(cfg)
    cfg.MODEL.FPR.WEIGHTS = str(tmp_path / "absent.pth")
    with pytest.raises(DataError, match="no such"):
        load_classifier(cfg)
