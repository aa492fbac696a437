"""Training and inference on a device of its own, whose tensors and the CPU's do not mix; as on a GPU."""

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from helpers import second_device
from helpers.blocks import blocks_cfg, register_blocks
from helpers.classifiers import fpr_blocks, fpr_cfg, lpc_blocks, lpc_cfg
from helpers.marks import embedding_cfg, marked_blocks, write_labels

from lens_d2.data.loader import load_test_records
from lens_d2.engine.classifier import train_fpr, train_lpc
from lens_d2.engine.embedding import train_embedding
from lens_d2.engine.trainer import LENSTrainer
from lens_d2.inference.detector import build_inference
from lens_d2.inference.rescoring import load_classifier, score_proposals
from lens_d2.modeling.embedding.embedder import build_embed
from lens_d2.structures.detections import FUSED


def refuse_mixtures():
    ours, theirs = torch.ones(3, device=second_device.NAME), torch.ones(3)
    assert (ours + theirs.to(ours.device)).sum().item() == 6
    assert ours[[0, 2]].device == ours[torch.tensor([0])].device == ours.device
    rows = theirs.long()
    for mixed in (lambda: ours + theirs, lambda: theirs[ours.bool()], lambda: ours.index_add_(0, rows, ours)):
        with pytest.raises(RuntimeError, match="two devices"):
            mixed()
    with pytest.raises(RuntimeError, match="numpy"):
        np.asarray(ours)


def test_the_device_refuses_what_a_gpu_refuses():
    second_device.run_beside_cpu(refuse_mixtures)


def each_learns_and_detects(folder, variants):
    register_blocks(folder / "data")
    for number, opts in enumerate(variants):
        print(opts, flush=True)  # shown if it fails
        here = folder / str(number)
        few = ["SOLVER.IMS_PER_BATCH", 2, "TEST.LINK_SCORE_THRESH", 0.0]
        learn_and_detect(blocks_cfg(here, "MODEL.DEVICE", second_device.NAME, *few, *opts))


def learn_and_detect(cfg):
    """Train every expert for a step and more, and compare the detections with those of the CPU."""
    torch.manual_seed(0)
    trainer = LENSTrainer(cfg)
    assert {value.device.type for value in trainer.model.state_dict().values()} == {second_device.NAME}
    batches, taught = iter(trainer.data_loader), set()
    with EventStorage():
        while len(taught) < len(cfg.MODEL.LENS.EXPERTS):
            batch = next(batches)
            taught.add(batch[0]["expert"])
            losses = trainer.model(batch)
            sum(losses.values()).backward()
            assert all(loss.isfinite() for loss in losses.values())
        trainer.optimizer.step()
    cfg.MODEL.DEVICE = "cpu"
    same = LENSTrainer.build_model(cfg)
    same.load_state_dict({name: value.cpu() for name, value in trainer.model.state_dict().items()})
    record = load_test_records(cfg, "blocks_deeplesion")[:1]
    ours, theirs = (build_inference(cfg, model.eval())(record)[0]["detections"] for model in (trainer.model, same))
    assert ours.keys() == theirs.keys() and len(ours[FUSED])
    for name in ours:
        np.testing.assert_allclose(ours[name].boxes, theirs[name].boxes, atol=1e-3)
        np.testing.assert_allclose(ours[name].scores, theirs[name].scores, atol=1e-4)


def test_experts_learn_and_detect_as_on_the_cpu(tmp_path):
    variants = [
        ["MODEL.ROI_HEADS.NAME", "GatedROIHeads", "MODEL.LENS.LABELED_SHARE", 0.3, "TEST.SCALES", (1.0, 1.25)],
        ["MODEL.PROPOSAL_GENERATOR.NAME", "LENSRPN", "MODEL.DENSENET.ADAPTERS", "residual"],
        ["MODEL.PROPOSAL_GENERATOR.NAME", "CenterNet", "MODEL.ROI_HEADS.MISSING_LABELS", "MOBHS"],
        ["MODEL.PROPOSAL_GENERATOR.NAME", "FCOS", "MODEL.LENS.ONE_STAGE", True],
    ]
    second_device.run_beside_cpu(each_learns_and_detects, tmp_path, variants)


def train_other_networks(folder):
    """Train both classifiers and the embedding for two steps, and use what came of it."""
    places = [folder / name for name in ("fpr", "lpc", "embedding")]
    for place in places:
        place.mkdir()
    fpr, lpc, embedding = fpr_cfg(places[0]), lpc_cfg(places[1]), embedding_cfg(places[2])
    for cfg, keys in ((fpr, fpr.MODEL.FPR), (lpc, lpc.MODEL.LPC), (embedding, embedding.MODEL.EMBEDDING)):
        cfg.MODEL.DEVICE, keys.SOLVER.MAX_ITER = second_device.NAME, 2
    train_fpr(fpr, *fpr_blocks(places[0]))
    records, positives, negatives = lpc_blocks(places[1])
    lpc.MODEL.LPC.WEIGHTS = train_lpc(lpc, records, positives, negatives)
    classifier = load_classifier(lpc, "LPC")
    assert {parameter.device.type for parameter in classifier.parameters()} == {second_device.NAME}
    scores = dict(score_proposals(lpc, classifier, records, positives))
    assert all(((0 < score) & (score < 1)).all() for score in scores.values())
    records = marked_blocks(places[2])
    write_labels(embedding)
    embedding.MODEL.EMBEDDING.WEIGHTS = train_embedding(embedding, records)
    marks = [(record, box[0], box[1:]) for record in records for x in record["lesions"] for box in x["boxes"]]
    assert build_embed(embedding)(marks).shape == (len(marks), embedding.MODEL.EMBEDDING.DIM)


def test_classifiers_and_the_embedding_learn(tmp_path):
    second_device.run_beside_cpu(train_other_networks, tmp_path)
