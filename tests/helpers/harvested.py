"""Hand-made 3D proposals and harvested lesions."""

import numpy as np

from lens_d2.mining.harvester.pool import HarvestedLesion
from lens_d2.structures.detections import VolumeDetections


def proposals(*tracklets, classifier=None):
    """Each tracklet: a list of (z, x1, y1, x2, y2, score)."""
    slice_boxes = np.array([box for boxes in tracklets for box in boxes], dtype=float).reshape(-1, 6)
    owner = np.repeat(np.arange(len(tracklets)), [len(boxes) for boxes in tracklets])
    boxes = [[*b[0][1:3], b[0][0], *b[0][3:5], b[-1][0]] for b in tracklets]
    scores = np.array([max(box[5] for box in boxes) for boxes in tracklets])
    classifier = scores if classifier is None else np.array(classifier)
    return VolumeDetections(
        np.array(boxes, dtype=float).reshape(-1, 6), scores, slice_boxes, owner, fpr_scores=classifier
    )


def box(z, x=10.0, score=0.5, side=10.0):
    return (z, x, 10.0, x + side, 20.0, score)


def harvested(z=3, x=10.0, generator=0.5, classifier=0.5, **kw):
    boxes = np.array([box(z - 1, x, 0.0), box(z, x, generator), box(z + 1, x, generator / 2)])
    settings = {"volume": "v", "round": 1, "number": 0, **kw}
    return HarvestedLesion(slice_boxes=boxes, generator=generator, classifier=classifier, **settings)
