"""The lesion embedding: network, losses against hand-computed values, training, use, calibration."""

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import torchvision
from detectron2.config import get_cfg
from helpers.blocks import write_blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2 import add_lens_config
from lens_d2.data.cache import build_cache
from lens_d2.data.labelled_lesions import LabelledLesions, LesionPatchDataset
from lens_d2.data.lesion_labels import LabelRelations, LesionLabels
from lens_d2.data.same_lesions import Mark, MarkPairs
from lens_d2.engine.embedding import EmbeddingObjective, train_embedding
from lens_d2.io.errors import DataError
from lens_d2.modeling.embedding import LesaNet, LesionEmbedder, build_embed, load_lesanet
from lens_d2.modeling.embedding.calibration import PAPERS_DISTANCE, calibrate, choose_distance, summarize
from lens_d2.modeling.embedding.losses import (
    draw_triplets,
    label_similarity,
    rhem_loss,
    triplet_loss,
    weighted_cross_entropy,
)


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(tmp_path / "output")
    cfg.INPUT.CACHE_DIR, cfg.INPUT.PIXEL_SPACING = str(tmp_path / "cache"), 2.0
    cfg.DATALOADER.NUM_WORKERS, cfg.SEED = 0, 5
    keys = cfg.MODEL.EMBEDDING
    keys.WIDTH, keys.FC_DIM, keys.DIM, keys.PATCH_SIZE, keys.PATCH_SPACING = 2, 8, 16, (3, 32, 32), (2.0, 2.0, 2.0)
    keys.LABELS, keys.ONTOLOGY = str(tmp_path / "labels.json"), str(tmp_path / "ontology.csv")
    keys.TRIPLETS, keys.RHEM_DRAWS, keys.BACKBONE_WEIGHTS = 200, 500, ""
    keys.SOLVER.IMS_PER_BATCH, keys.SOLVER.EPOCHS, keys.SOLVER.MAX_ITER = 8, 0, 40
    keys.SOLVER.BASE_LR, keys.SOLVER.OPTIMIZER = 0.01, "AdamW"
    return cfg


# Network


def test_the_stages_are_those_of_torchvisions_vgg16():
    cfg = get_cfg()
    add_lens_config(cfg)
    with torch.device("meta"):
        network = LesaNet(cfg, 171)
        reference = torchvision.models.vgg16_bn(num_classes=2, init_weights=False).features[:-1]
    own = torch.nn.Sequential(*(module for stage in network.stages for module in stage))
    assert [type(module) for module in own] == [type(module) for module in reference]
    assert [p.shape for p in own.parameters()] == [p.shape for p in reference.parameters()]
    assert network.embedding.weight.shape == (256, 5 * 256) and network.label_scores.weight.shape == (171, 5 * 256)
    assert network.stage_fcs[4].in_features == 512 * 25


def test_outputs(cfg):
    network = LesaNet(cfg, 6).eval()
    patches, boxes = torch.randn(4, 3, 32, 32) * 300, torch.tensor([[8.0, 8, 24, 24]]).expand(4, -1)
    embedding, logits, propagated = network(patches, boxes)
    assert embedding.shape == (4, 16) and logits.shape == (4, 6)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(propagated, logits)  # propagation starts as the identity
    (embedding.sum() + propagated.sum()).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_the_box_is_where_fine_stages_look_and_the_patch_where_coarse_ones_do(cfg):
    network = LesaNet(cfg, 6).eval()
    patch = torch.randn(1, 3, 32, 32) * 300
    whole, small = torch.tensor([[0.0, 0, 32, 32]]), torch.tensor([[10.0, 12, 18, 20]])
    seen = {}
    for number, fc in enumerate(network.stage_fcs):
        fc.register_forward_hook(lambda module, args, out, number=number: seen.setdefault(number, []).append(out))
    with torch.no_grad():
        network(patch, whole)
        network(patch, small)
    same = [torch.equal(*seen[number]) for number in range(5)]
    assert same == [False, False, False, True, True]


# Losses


def test_weighted_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [-math.log(3), 2.0]])
    positive = torch.tensor([[True, False], [False, True]])
    known = torch.tensor([[True, True], [True, False]])
    heavy, light = torch.tensor([4.0, 2.0]), torch.tensor([1.0, 0.5])
    # Positive at 0.5: 4 ln 2; negative at 0.75: 0.5 ln 4; negative at 0.25: ln(4/3); the last is not known.
    expected = (4 * math.log(2) + 0.5 * math.log(4) + math.log(4 / 3)) / 4
    loss = weighted_cross_entropy(logits, positive, known, heavy, light)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_rhem_draws_reliable_labels_by_difficulty():
    logits = torch.tensor([[0.0, math.log(3), 5.0]], requires_grad=True)
    positive = torch.tensor([[True, False, False]])
    reliable = torch.tensor([[True, True, False]])
    # Difficulties 0.5 ** 2 and 0.75 ** 2, so shares 4/13 and 9/13, losses ln 2 and ln 4.
    expected = (4 * math.log(2) + 9 * math.log(4)) / 13
    generator = torch.Generator().manual_seed(0)
    loss = rhem_loss(logits, positive, reliable, generator, power=2.0, draws=200000)
    assert loss.item() == pytest.approx(expected, rel=5e-3)
    loss.backward()
    assert logits.grad[0, 2] == 0 and (logits.grad[0, :2] != 0).all()
    flat = rhem_loss(logits, positive, reliable, generator, power=0.0, draws=200000)
    assert flat.item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=5e-3)
    assert rhem_loss(logits, positive, ~reliable & False, generator).item() == 0


def test_similarity_is_shared_labels_times_jaccard():
    positive = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    shared, similarity = label_similarity(positive)
    assert shared[0].tolist() == [2, 1, 2, 0]
    torch.testing.assert_close(similarity[0], torch.tensor([2.0, 0.5, 2 * 2 / 3, 0.0]))


def test_triplets_by_hand():
    positive = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]], dtype=torch.bool)
    triplets = draw_triplets(positive, 2000, torch.Generator().manual_seed(0))
    found = {tuple(t) for t in triplets.tolist()}
    # 0 and 1 are alike; both share one of three labels with 2 and nothing with 3; 2 and 3 share one of two.
    assert found == {
        (0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 0, 2), (1, 0, 3),
        (1, 2, 3), (2, 3, 0), (2, 3, 1), (3, 2, 0), (3, 2, 1),
    }  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(labels=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=7))
def test_triplets_of_any_batch(labels):
    positive = torch.tensor(labels, dtype=torch.bool)
    triplets = draw_triplets(positive, 50, torch.Generator().manual_seed(0))
    shared, similarity = label_similarity(positive)
    for a, p, n in triplets.tolist():
        assert len({a, p, n}) == 3 and shared[a, p] > 0 and similarity[a, n] < similarity[a, p]


def test_triplet_loss_by_hand():
    positive = torch.tensor([[1, 0], [1, 0], [0, 1]], dtype=torch.bool)
    embedding = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]], requires_grad=True)
    # Anchors 0 and 1: |0-1| = sqrt(0.4), |0-2| = sqrt(0.8), |1-2| = sqrt(0.08); lesion 2 has no similar one.
    from_0 = max(math.sqrt(0.4) - math.sqrt(0.8) + 0.1, 0)
    from_1 = max(math.sqrt(0.4) - math.sqrt(0.08) + 0.1, 0)
    generator = torch.Generator().manual_seed(0)
    drawn = draw_triplets(positive, 3000, torch.Generator().manual_seed(0))
    share = (drawn[:, 0] == 1).float().mean().item()
    loss = triplet_loss(embedding, positive, generator, margin=0.1, triplets=3000)
    assert share == pytest.approx(0.5, abs=0.05)
    assert loss.item() == pytest.approx((1 - share) * from_0 + share * from_1, rel=1e-4)
    loss.backward()
    assert torch.isfinite(embedding.grad).all()
    assert triplet_loss(embedding, positive[:, :1] & False, generator).item() == 0


def test_the_objective_weighs_four_losses_and_repeats_itself(cfg):
    cfg.MODEL.EMBEDDING.LOSS_WEIGHTS = (1.0, 0.0, 5.0, 2.0)
    torch.manual_seed(0)
    network = LesaNet(cfg, 3).eval()
    objective = EmbeddingObjective(network, (np.ones(3), np.ones(3)), cfg.MODEL.EMBEDDING)
    batch = {
        "patch": torch.randn(4, 3, 32, 32) * 300, "box": torch.tensor([[8.0, 8, 24, 24]]).expand(4, -1),
        "positive": torch.eye(4, 3) > 0, "known": torch.ones(4, 3) > 0, "reliable": torch.ones(4, 3) > 0,
        "seed": torch.arange(4),
    }  # fmt: skip
    batch["positive"][3, 0] = True
    first, second = objective(batch), objective(batch)
    assert set(first) == {"loss_labels", "loss_rhem", "loss_triplet", "loss_propagated"}
    assert first["loss_rhem"] == 0 and first["loss_triplet"] > 0
    torch.testing.assert_close(first["loss_propagated"], 2 * first["loss_labels"])
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not [name for name in objective.state_dict() if "weight" in name and "network" not in name]


# Training and use


@pytest.fixture
def records(tmp_path):
    """Volumes with two bright blocks; the second of each is made dark. Rows number them through."""
    folder = tmp_path / "blocks"
    folder.mkdir()
    records = write_blocks(folder, "deeplesion", volumes=6)
    for number, record in enumerate(records):
        image = sitk.ReadImage(record["file_name"])
        array = sitk.GetArrayFromImage(image)
        x1, y1, z1, x2, y2, z2 = (int(v) for v in record["lesions"][1]["box3d"])
        array[z1 : z2 + 1, y1:y2, x1:x2] = -700
        dark = sitk.GetImageFromArray(array)
        dark.CopyInformation(image)
        sitk.WriteImage(dark, record["file_name"])
        for k, lesion in enumerate(record["lesions"]):
            lesion["id"], lesion["recist"] = f"{record['volume']}/{2 * number + k}", [0.0] * 8
            lesion["boxes"] = [lesion["boxes"][1]]
    return records


@pytest.fixture
def label_files(cfg):
    """Terms bright and dark, mutually exclusive, dark implying hole."""
    content = {"term_list": ["bright", "dark", "hole"]}
    for split in ("train", "val", "test"):
        content |= {f"{split}_{part}": [] for part in ("lesion_idxs", "relevant_labels", "uncertain_labels")}
    content |= {
        "train_lesion_idxs": list(range(12)), "train_relevant_labels": [[0], [1]] * 6,
        "train_uncertain_labels": [[]] * 12,
    }  # fmt: skip
    with open(cfg.MODEL.EMBEDDING.LABELS, "w") as file:
        json.dump(content, file)
    with open(cfg.MODEL.EMBEDDING.ONTOLOGY, "w") as file:
        file.write(
            "class,term,term_exclusive,term_parents\nattribute,bright,dark,\nattribute,dark,,hole\ntype,hole,,\n"
        )


def test_it_learns_which_lesions_are_alike(cfg, records, label_files):
    cfg.MODEL.EMBEDDING.WEIGHTS = train_embedding(cfg, records)
    embed = build_embed(cfg)
    items = [(r, x["boxes"][0][0], x["boxes"][0][1:]) for r in records for x in r["lesions"]]
    embedding = embed(items)
    assert embedding.shape == (12, 16) and embedding.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-5)
    distance = np.linalg.norm(embedding[:, None] - embedding[None], axis=2)
    alike = (np.arange(12)[:, None] - np.arange(12)) % 2 == 0
    assert distance[alike].mean() * 2 < distance[~alike].mean()
    # Order and company make no difference; no box, no row.
    order = np.random.default_rng(0).permutation(12)
    np.testing.assert_allclose(embed([items[i] for i in order]), embedding[order], atol=1e-5)
    small = LesionEmbedder(
        network=load_lesanet(cfg, cfg.MODEL.EMBEDDING.WEIGHTS), cache=build_cache(cfg), batch_size=1
    )
    np.testing.assert_allclose(small.embed(items), embedding, atol=1e-5)
    assert embed([]).shape == (0, 16)


def test_training_goes_on_where_it_was_interrupted(cfg, records, label_files, tmp_path):
    cfg.MODEL.EMBEDDING.SOLVER.MAX_ITER, cfg.MODEL.EMBEDDING.SOLVER.CHECKPOINT_PERIOD = 4, 2
    whole = torch.load(train_embedding(cfg, records), weights_only=True)["model"]
    folder = tmp_path / "output" / "embedding"
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    resumed = torch.load(train_embedding(cfg, records, resume=True), weights_only=True)["model"]
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, msg=key)


def test_it_starts_from_a_vgg16(cfg, records, label_files, tmp_path):
    layers = [v if v == "M" else v // 32 for v in torchvision.models.vgg.cfgs["D"]]  # two channels at first
    features = torchvision.models.vgg.make_layers(layers, batch_norm=True)
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(3, 3)}, tmp_path / "vgg.pth")
    network = LesaNet(cfg, 3)
    network.load_initial_weights(str(tmp_path / "vgg.pth"))
    own = torch.nn.Sequential(*(module for stage in network.stages for module in stage))
    for key, value in own.state_dict().items():
        assert torch.equal(value, features.state_dict()[key])
    cfg.MODEL.EMBEDDING.BACKBONE_WEIGHTS, cfg.MODEL.EMBEDDING.SOLVER.MAX_ITER = str(tmp_path / "absent.pth"), 1
    with pytest.raises(DataError, match="absent.pth"):
        train_embedding(cfg, records)


def test_marks_without_labels_are_an_error(cfg, records, label_files):
    for record in records:
        for lesion in record["lesions"]:
            lesion["recist"] = None
    with pytest.raises(DataError, match="labels.json: no mark of deeplesion_train has a label"):
        train_embedding(cfg, records)


def test_jittered_boxes_stay_on_their_slice(cfg, records):
    relations = LabelRelations(np.zeros((1, 1), bool), np.zeros((1, 1), bool))
    lesions = LabelledLesions.from_records(records, {0: LesionLabels((0,), ())}, relations)
    network = LesaNet(cfg, 1)
    dataset = LesionPatchDataset(records, lesions, build_cache(cfg), network.grid, jitter=0.2)
    samples = [dataset[(0, seed)] for seed in range(6)]
    sizes = np.array([(s["box"][2:] - s["box"][:2]).numpy() for s in samples])
    assert len(np.unique(sizes)) > 6 and (np.abs(sizes / [14, 12] - 1) < 0.41).all()
    for sample in samples:
        assert sample["patch"].shape == (3, 32, 32)
        # The middle slice is the mark's, on which the block is: no jitter along z.
        x1, y1, x2, y2 = (int(v) for v in sample["box"].round())
        assert sample["patch"][1, y1 + 3 : y2 - 3, x1 + 3 : x2 - 3].min() > 250


def test_checkpoints_of_other_architectures_are_refused(cfg, tmp_path):
    path = tmp_path / "wide.pth"
    torch.save({"model": LesaNet(cfg, 4).state_dict()}, path)
    assert load_lesanet(cfg, str(path)).label_scores.out_features == 4
    cfg.MODEL.EMBEDDING.WIDTH = 4
    with pytest.raises(DataError, match="wide.pth.*another architecture"):
        load_lesanet(cfg, str(path))
    torch.save({"model": {"conv1.weight": torch.zeros(1)}}, path)
    with pytest.raises(DataError, match="wide.pth: weights of another architecture: no key label_scores"):
        load_lesanet(cfg, str(path))
    with pytest.raises(DataError, match="MODEL.EMBEDDING.WEIGHTS: is empty"):
        build_embed(cfg)


# Calibration


def test_the_distance_is_the_largest_of_the_wanted_precision():
    distances = np.arange(20) / 100 + 0.05
    same = np.ones(20, bool)
    same[[12, 16, 17]] = False
    # 0.9 holds up to 0.20 (15 of 16); with 16 and 17 it falls to 15 of 18, and rises to 17 of 20 only.
    assert choose_distance(distances, same, 0.9) == pytest.approx(0.205)
    assert choose_distance(distances, same, 0.99) == pytest.approx(0.165)
    assert choose_distance(distances[::-1], same[::-1], 0.9) == pytest.approx(0.205)
    assert choose_distance(distances, ~same, 0.9) is None
    assert choose_distance(np.zeros(0), np.zeros(0, bool), 0.9) is None
    # All are of one lesion: the last one lies below as well. Pairs at one distance are not parted.
    assert (distances < choose_distance(distances, np.ones(20, bool), 0.9)).all()
    assert choose_distance(np.full(20, 0.3), np.arange(20) < 12, 0.9) is None


def test_calibration_reports_what_it_found():
    distances = np.concatenate([np.linspace(0.01, 0.2, 20), np.linspace(0.195, 1, 30)])
    pairs = MarkPairs(np.zeros(50, int), np.zeros(50, int), np.arange(50) < 20)
    found = summarize(distances, pairs, 0.9)
    near = distances < found.distance
    assert found.calibrated and (found.same_pairs, found.different_pairs) == (20, 30)
    assert (
        found.precision == pytest.approx(pairs.same[near].mean()) and found.precision >= 0.9 and found.recall == 1
    )
    assert found.same_quartiles[1] == pytest.approx(0.105) and "precision 0.9" in str(found)
    json.dumps(found.to_dict())
    few = summarize(distances[:5], MarkPairs(*(part[:5] for part in pairs)), 0.9)
    assert few.distance == PAPERS_DISTANCE and not few.calibrated and "the paper's" in str(few)


def test_calibration_embeds_the_marks_of_its_pairs():
    """Fourteen patients with a lesion in two series each; embeddings that say which lesion it is."""
    marks = []
    for patient in range(14):
        for series in "ab":
            record = {"patient": str(patient), "series": f"{patient}{series}", "volume": f"{patient}{series}"}
            marks.append(Mark(record, 1, (0.0, 0.0, 4.0, 4.0), np.array([0.2, 0.4, 0.5])))
            marks.append(Mark(record, 2, (0.0, 0.0, 4.0, 4.0), np.array([0.6, 0.4, 0.5])))
    embedded = []

    def embed(items):
        embedded.extend(items)
        return np.array([[math.cos(z), math.sin(z)] for _, z, _ in items], dtype=np.float32)

    found = calibrate(embed, marks)
    assert found.calibrated and (found.same_pairs, found.different_pairs) == (28, 56)
    assert found.precision == found.recall == 1 and 0 < found.distance < 2 * math.sin(0.5)
    assert len(embedded) == 56
