"""Heatmaps of centres, and the losses of Eqs. 6 and 8."""

import math

import numpy as np
import pytest
import torch

from lens_d2.config import load_config
from lens_d2.io import formats
from lens_d2.modeling.heatmaps import (
    gaussian_heatmap,
    gaussian_radius,
    penalty_reduced_focal_loss,
    with_hard_negatives,
)


def published_radius(width, height, overlap=0.7):
    """Radius of CenterNet's published code before it is rounded: of three roots, the smallest."""
    total, area = width + height, width * height
    quadratics = (
        (1, total, area * (1 - overlap) / (1 + overlap)),
        (4, 2 * total, area * (1 - overlap)),
        (4 * overlap, -2 * overlap * total, area * (overlap - 1)),
    )
    return min((b + math.sqrt(b**2 - 4 * a * c)) / 2 for a, b, c in quadratics)


@pytest.mark.parametrize("overlap", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_the_radius_is_that_of_centernets_published_code(overlap):
    """For all boxes of up to 128 cells a side: all that an image of 512 pixels holds."""
    assert published_radius(10, 10) == pytest.approx(2.733, abs=1e-3)
    sides = torch.cartesian_prod(torch.arange(1.0, 129), torch.arange(1.0, 129))
    published = torch.tensor([published_radius(*pair, overlap) for pair in sides.tolist()])
    rest = published - gaussian_radius(sides, overlap)
    assert rest.min() > -1e-4 and rest.max() < 1 + 1e-4  # a root may be a whole number
    assert overlap != 0.7 or torch.equal(gaussian_radius(sides, overlap), published.floor())
    assert torch.equal(gaussian_radius(sides - 0.5, overlap), gaussian_radius(sides, overlap))  # rounded up


def test_released_boxes_have_the_radius_of_centernets_code(shared_dir):
    """The marks of the validation split, at the file's pixels of about 0.8 mm. None has the radius 0."""
    entries = formats.read_revised(shared_dir / "annotations/deeplesion/RECIST-Box-Valid.pkl")
    boxes = np.concatenate([np.asarray(rows, dtype=float).reshape(-1, 5)[:, 1:] for rows in entries.values()])
    cells = (boxes[:, 2:] - boxes[:, :2]) / 4
    published = [int(published_radius(*map(math.ceil, pair))) for pair in cells.tolist()]
    radius = gaussian_radius(torch.tensor(cells, dtype=torch.float32), 0.7)
    assert len(cells) == 4885 and radius.tolist() == published
    assert radius.min() == 1


def test_heatmap_is_a_gaussian_around_the_cell_of_the_centre():
    boxes = torch.tensor([[7.0, 1, 37, 31]])  # its centre is in column 22, row 16
    heat = gaussian_heatmap(boxes, (40, 50), min_overlap=0.7)
    radius = int(gaussian_radius(torch.tensor([[30.0, 30]]), 0.7))
    sigma = (2 * radius + 1) / 6
    assert radius == 8 and (heat == 1).sum() == 1 and heat[16, 22] == 1
    assert heat[16, 24] == pytest.approx(torch.exp(torch.tensor(-(2**2) / (2 * sigma**2))).item())
    assert heat[15, 24] == pytest.approx((heat[16, 24] * heat[15, 22]).item())
    assert (heat > 0).sum() == (2 * radius + 1) ** 2
    assert gaussian_heatmap(boxes[:0], (40, 50), 0.7).sum() == 0


def test_overlapping_gaussians_keep_the_larger_value():
    boxes = torch.tensor([[10.0, 4, 34, 28], [13.0, 4, 37, 28]])
    together = gaussian_heatmap(boxes, (40, 50), 0.7)
    apart = [gaussian_heatmap(box[None], (40, 50), 0.7) for box in boxes]
    assert torch.equal(together, torch.maximum(*apart)) and (together == 1).sum() == 2


def test_equation_6_by_hand():
    logits = torch.tensor([0.3, -0.7, 1.1])
    target = torch.tensor([1.0, 0.0, 0.6])
    p = logits.sigmoid()
    expected = -(
        (1 - p[0]) ** 2 * p[0].log() + p[1] ** 2 * (1 - p[1]).log() + 0.4**4 * p[2] ** 2 * (1 - p[2]).log()
    )
    assert penalty_reduced_focal_loss(logits, target).item() == pytest.approx(expected.item(), rel=1e-5)
    extreme = penalty_reduced_focal_loss(torch.tensor([90.0, -90.0]), torch.tensor([0.0, 1.0]))
    assert extreme.item() == pytest.approx(180, rel=1e-3)


@pytest.mark.parametrize("logit", [-3.0, 0.0, 2.0])
def test_a_hard_negative_weighs_16_times_a_background_pixel(logit):
    losses, gradients = [], []
    for target in (-1.0, 0.0):
        x = torch.tensor([logit], requires_grad=True)
        loss = penalty_reduced_focal_loss(x, torch.tensor([target]), beta=4.0)
        loss.backward()
        losses.append(loss.item())
        gradients.append(x.grad.item())
    assert losses[0] == 16 * losses[1] and gradients[0] == pytest.approx(16 * gradients[1], rel=1e-6)


def test_hard_negatives_overwrite_lesions():
    positive, negative = torch.tensor([0.0, 1.0, 0.5, 0.2]), torch.tensor([0.0, 0.3, 0.0, 1.0])
    assert with_hard_negatives(positive, negative).tolist() == pytest.approx([0.0, -0.3, 0.5, -1.0])


def test_lesions_have_a_gaussian_at_the_papers_size(repo_root):
    """20 mm, at the pixels and the stride of the config."""
    cfg = load_config(repo_root / "configs/cecn.yaml")
    side = 20 / cfg.INPUT.PIXEL_SPACING / 4
    assert gaussian_radius(torch.tensor([[side, side]]), cfg.MODEL.CENTERNET.MIN_OVERLAP) >= 1
