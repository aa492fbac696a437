"""Pieces of training that generators and heads share."""

import pytest
import torch
from detectron2.structures import Boxes

from lens_d2.modeling.supervision import (
    gather_over_ranks,
    global_normalizer,
    log_counts,
    of_status,
    overlaps_any,
    seeded,
)
from lens_d2.structures.status import BoxStatus

BOXES = [(0, 0, 10, 10), (20, 20, 30, 30), (40, 40, 50, 50)]


def test_boxes_are_selected_by_status(make_targets):
    targets = make_targets(BOXES, [BoxStatus.UNCERTAIN, BoxStatus.LESION, BoxStatus.HARD_NEGATIVE])
    found = {status: of_status(targets, status).gt_boxes.tensor.tolist() for status in BoxStatus}
    assert found == {
        BoxStatus.UNCERTAIN: [[0, 0, 10, 10]],
        BoxStatus.LESION: [[20, 20, 30, 30]],
        BoxStatus.HARD_NEGATIVE: [[40, 40, 50, 50]],
    }


def test_without_a_status_all_boxes_are_lesions(make_targets):
    targets = make_targets(BOXES)
    targets.remove("gt_status")
    assert [len(of_status(targets, status)) for status in BoxStatus] == [3, 0, 0]


def test_a_box_is_on_an_uncertain_region_by_overlap_or_inside_it():
    uncertain = Boxes(torch.tensor([[0.0, 0, 20, 20]]))
    boxes = Boxes(torch.tensor([[0.0, 0, 20, 16], [2, 2, 6, 6], [10, 10, 30, 30], [18, 0, 22, 4], [18, 0, 24, 4]]))
    assert overlaps_any(boxes, uncertain).tolist() == [True, True, False, True, False]
    assert overlaps_any(boxes, uncertain[:0]).tolist() == [False] * 5
    assert overlaps_any(boxes[:0], uncertain).tolist() == []


def test_counts_are_means_over_the_images(storage):
    positive = torch.tensor([[True, False, False], [True, True, False]])
    log_counts("net", positive, ~positive)
    latest = storage.latest()
    assert (latest["net/num_pos_pixels"][0], latest["net/num_neg_pixels"][0]) == (1.5, 1.5)


@pytest.mark.parametrize("count, expected", [(0, 1.0), (7, 7.0)])
def test_one_rank_divides_by_its_own_count(count, expected):
    assert global_normalizer(count, torch.device("cpu")) == expected


def test_seeded_numbers_leave_no_trace():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with seeded(5, torch.device("cpu")):
        first = torch.rand(2)
    assert torch.equal(torch.rand(3), expected)
    with seeded(5, torch.device("cpu")):
        assert torch.equal(torch.rand(2), first)
    torch.manual_seed(0)
    with seeded(None, torch.device("cpu")):
        assert torch.equal(torch.rand(3), expected)


def test_rows_of_all_ranks_have_the_gradient_of_the_whole(monkeypatch):
    whole = torch.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]], requires_grad=True)
    shares = [share.detach().requires_grad_() for share in whole.split(2)]
    (whole.prod(dim=0) / 100).sum().backward()

    def all_gather(rows, own):
        for row, share in zip(rows, shares, strict=True):
            row.copy_(share.detach())

    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_gather", all_gather)
    for rank, share in enumerate(shares):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        gathered = gather_over_ranks(share)
        assert torch.equal(gathered, whole)
        (gathered.prod(dim=0) / 100).sum().backward()
        torch.testing.assert_close(share.grad / 2, whole.grad[2 * rank : 2 * rank + 2])
