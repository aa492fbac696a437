"""Patches of labelled lesions."""

import numpy as np
import pytest
from helpers.marks import embedding_cfg, marked_blocks

from lens_d2.data.cache import build_cache
from lens_d2.data.labelled_lesions import LabelledLesions, LesionPatchDataset
from lens_d2.data.lesion_labels import LabelRelations, LesionLabels
from lens_d2.modeling.embedding import LesaNet


@pytest.fixture
def cfg(tmp_path):
    return embedding_cfg(tmp_path)


@pytest.fixture
def records(tmp_path):
    return marked_blocks(tmp_path)


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
