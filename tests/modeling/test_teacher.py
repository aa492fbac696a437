"""The teacher: a moving average, and the labels that it gives."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from lens_d2.modeling.prediction_bank import Visit
from lens_d2.modeling.teacher import Teacher, unknown, with_pseudo_labels
from lens_d2.structures.status import BoxStatus

LESION, UNCERTAIN, NEGATIVE = BoxStatus.LESION, BoxStatus.UNCERTAIN, BoxStatus.HARD_NEGATIVE


def detections(*found, size=(64, 80)):
    """Of (box, score)."""
    boxes = torch.tensor([box for box, _ in found], dtype=torch.float32).reshape(-1, 4)
    return Instances(size, pred_boxes=Boxes(boxes), scores=torch.tensor([score for _, score in found]))


def targets_of(*known, size=(64, 80)):
    """Of (box, status), with the mapper's fields and two tags."""
    status = torch.tensor([int(status) for _, status in known], dtype=torch.int64)
    n = len(known)
    return Instances(
        size, gt_boxes=Boxes(torch.tensor([box for box, _ in known], dtype=torch.float32).reshape(-1, 4)),
        gt_status=status, gt_classes=torch.zeros_like(status), gt_weight=torch.full((n,), 0.5),
        gt_recist=torch.ones(n, 4, 2), gt_tags=torch.ones(n, 2, dtype=torch.bool), gt_tag_weights=torch.ones(n, 2),
    )  # fmt: skip


def labels(known, found):
    """Targets with what is found, a lesion from 0.95 on."""
    new = unknown(found, known, 0.3)
    return with_pseudo_labels(known, new, new.scores >= 0.95)


def test_sure_detections_are_lesions_less_sure_ones_uncertain_and_known_ones_neither():
    known = targets_of(([10, 10, 20, 20], LESION), ([30, 10, 40, 20], UNCERTAIN), ([50, 10, 60, 20], NEGATIVE))
    found = detections(
        ([11, 10, 21, 20], 0.99), ([31, 10, 41, 20], 0.99), ([51, 10, 61, 20], 0.99), ([10, 40, 20, 50], 0.97),
        ([30, 40, 40, 50], 0.6), ([70, 40, 70.5, 50], 0.99), ([19, 10, 29, 20], 0.96),
        ([12, 12, 16, 16], 0.99),  # inside a known lesion
    )  # fmt: skip
    labelled = labels(known, found)
    assert len(labelled) == 6 and torch.equal(labelled[:3].gt_boxes.tensor, known.gt_boxes.tensor)
    new = labelled[3:]
    assert new.gt_boxes.tensor[:, 0].tolist() == [10, 30, 19] and new.gt_status.tolist() == [0, 1, 0]
    assert new.gt_weight.tolist() == pytest.approx([0.97, 1.0, 0.96])
    assert torch.isnan(new.gt_recist).all() and not new.gt_tags.any() and not new.gt_tag_weights.any()
    assert list(labelled.get_fields()) == list(known.get_fields())


def test_targets_without_weights_weigh_1_beside_what_the_teacher_finds():
    known = targets_of(([10, 10, 20, 20], LESION))
    known.remove("gt_weight")
    labelled = labels(known, detections(([10, 40, 20, 50], 0.97)))
    assert labelled.gt_weight.tolist() == pytest.approx([1.0, 0.97]) and not known.has("gt_weight")


@pytest.mark.parametrize("known", [(), (([10, 10, 20, 20], LESION),)])
def test_without_detections_or_without_targets(known):
    assert len(labels(targets_of(*known), detections())) == len(known)
    assert len(labels(targets_of(*known), detections(([10, 40, 20, 50], 0.97)))) == len(known) + 1


def test_it_follows_weights_and_buffers():
    model = nn.BatchNorm1d(1)
    teacher = Teacher(model, experts=("a",), decay=0.75)
    model.weight.data.fill_(2), model.running_mean.fill_(4)
    teacher.start(model)
    assert teacher.module.weight.item() == 2 and teacher.module.running_mean.item() == 4  # a copy
    model.weight.data.fill_(6), model.running_mean.fill_(8)
    teacher.update_parameters(model)
    teacher.start(model)  # as at a resumption
    assert teacher.module.weight.item() == 3 and teacher.module.running_mean.item() == 5
    assert not teacher.module.training and not any(p.requires_grad for p in teacher.parameters())


def test_it_labels_batches_of_partially_labelled_datasets_once_it_has_begun(small_cfg, make_batch, storage):
    small_cfg.MODEL.TEACHER.ENABLED = True
    small_cfg.MODEL.TEACHER.START_ITER = 1
    small_cfg.MODEL.TEACHER.LESION_SCORE = small_cfg.MODEL.TEACHER.UNCERTAIN_SCORE = 0.0
    torch.manual_seed(0)
    model = build_model(small_cfg)
    teacher = Teacher.from_config(small_cfg, model)
    batch, other = make_batch("deeplesion"), make_batch("luna")
    teacher.start(model)
    assert teacher.label(batch) is batch
    teacher.update_parameters(model)
    assert teacher.label(other) is other
    labelled = teacher.label(batch)
    new = [len(x["instances"]) - len(y["instances"]) for x, y in zip(labelled, batch, strict=True)]
    assert min(new) > 0 and storage.latest()["teacher/num_lesions"][0] == sum(new) / len(new)
    assert storage.latest()["teacher/num_uncertain"][0] == 0
    small_cfg.MODEL.TEACHER.ENABLED = False
    assert Teacher.from_config(small_cfg, model) is None


def test_with_a_bank_a_lesion_is_uncertain_until_it_persists():
    """Two steps of a teacher that finds one lesion at once, and another that comes and goes."""
    lasting, fleeting = ([10, 40, 20, 50], 0.99), ([50, 10, 60, 20], 0.97)
    steps = iter([[lasting, fleeting], [lasting], [lasting, fleeting, ([30, 40, 40, 50], 0.4)]])

    class Finder(nn.Module):
        def forward(self, batch):
            return [{"experts": {"deeplesion": detections(*next(steps))}} for _ in batch]

    teacher = Teacher(Finder(), experts=("deeplesion",), start_iter=0, visits=3)
    teacher.n_averaged += 1
    sample = {
        "image": torch.zeros(1, 64, 80), "instances": targets_of(), "expert": "deeplesion",
        "volume": "a", "slice": 3, "to_volume": np.array([[2.0, 0, 5], [0, 2, 7]]),
    }  # fmt: skip
    seen = []
    with EventStorage():
        for _ in range(3):
            (labelled,) = teacher.label([sample])
            seen.append(labelled["instances"].gt_status.tolist())
            teacher.remember()
    assert seen == [[UNCERTAIN, UNCERTAIN], [UNCERTAIN], [LESION, UNCERTAIN]]
    assert Teacher(Finder(), experts=("deeplesion",)).bank is None


def test_ranks_share_the_bank(monkeypatch):
    teacher = Teacher(nn.Identity(), experts=("deeplesion",), visits=2)
    box = np.array([[10.0, 10, 20, 20]])
    visit = Visit("a", 3, np.array([0.0, 0, 80, 64]), box)
    monkeypatch.setattr(comm, "all_gather", lambda own: [own, [visit]])
    teacher.remember()
    assert teacher.bank.visits(visit).tolist() == [2]
