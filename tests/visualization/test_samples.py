"""Samples as pictures: the central slice, and the overlays that training writes."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from helpers.blocks import blocks_cfg, register_blocks

from lens_d2.data.mapper import SliceMapper
from lens_d2.visualization.samples import central_slice


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    register_blocks(folder)
    return folder


def test_the_central_slice_in_hu(folder):
    cfg = blocks_cfg(folder)
    record = DatasetCatalog.get("blocks_luna")[0]
    mapper = SliceMapper(cfg, is_train=False)
    hu = central_slice(mapper(record, 2), mapper.hu_window)
    volume = mapper.cache.open(record)
    expected = volume.read(volume.geometry.slices_to_cache([2.0]))[0]
    low, high = mapper.hu_window
    np.testing.assert_allclose(hu, expected.clip(low, high), atol=0.5)
