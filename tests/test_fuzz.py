"""Damaged files: every reader gives what it finds or one line on what is wrong, and never stays away."""

import json
import signal
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.scan_files import make_affine, write_pngs, write_series, write_volume
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lens_d2.data.datasets import deeplesion, lits, luna
from lens_d2.data.ledger.table import LedgerRow, read_ledger, to_table, write_ledger
from lens_d2.data.lesion_labels import read_hand_labels, read_labels
from lens_d2.data.volume import read_volume
from lens_d2.export.dicom_headers import read_headers
from lens_d2.io.checkpoint import load_weights
from lens_d2.io.errors import DataError
from lens_d2.io.formats import (
    read_boxes3d,
    read_lens_set,
    read_revised,
    read_volumes,
    write_boxes3d,
    write_lens_set,
    write_revised,
)
from lens_d2.io.pickles import read_pickle
from lens_d2.mining.shards import ShardStore
from lens_d2.structures.detections import VolumeDetections

ARRAY = np.random.default_rng(0).integers(-1000, 1000, (3, 6, 7)).astype(np.int16)
AFFINE = make_affine((0.8, 0.8, 3))
NAME = "000001_01_01_010-016"
HANG = 30  # seconds; no reader of these files takes a hundredth of it
BOXES = np.array([[10.0, 20, 2, 30, 40, 4], [50, 60, 1, 70, 80, 1]])


def volume(name):
    return lambda folder: write_volume(folder / name, ARRAY, AFFINE)


def text(name, content):
    def write(folder):
        (folder / name).write_text(content)
        return folder / name

    return write


def png(folder):
    return write_pngs(folder / "slices", ARRAY) / "002.png"


def dicom(folder):
    return sorted(write_series(folder / "series", ARRAY, AFFINE, "1.2.3", PatientName="Doe^Jane").iterdir())[1]


def marks(folder):
    cells = {
        "File_name": "000001_01_01_012.png", "Key_slice_index": 12, "Bounding_boxes": '"1, 2, 5, 6"',
        "Measurement_coordinates": '"2, 3, 4, 3, 3, 2, 3, 4"', "Lesion_diameters_Pixel_": '"2, 1"',
        "Coarse_lesion_type": 5, "Possibly_noisy": 0, "Slice_range": '"10, 16"', "Image_size": '"64, 64"',
        "Spacing_mm_px_": '"0.8, 0.8, 5"', "Train_Val_Test": 1,
    }  # fmt: skip
    return text("DL_info.csv", f"{','.join(cells)}\n{','.join(map(str, cells.values()))}\n")(folder)


def released(write, *content):
    def make(folder):
        write(folder / "boxes.pkl", *content)
        return folder / "boxes.pkl"

    return make


def ledger(name):
    def make(folder):
        row = LedgerRow(
            "m/0", NAME, 3, 1.0, 2.0, 30.0, 40.0, f"{NAME}/0", "CrossSlice", 1, 0.9, 0.5, "", "annotation"
        )
        write_ledger(folder / name, [to_table([row])])
        return folder / name

    return make


def shard(folder):
    found = VolumeDetections(
        BOXES,
        np.array([0.9, 0.2]),
        np.array([[3, 10, 20, 30, 40, 0.9], [1, 50, 60, 70, 80, 0.2]]),
        np.array([0, 1]),
    )
    store = ShardStore(folder, "model", lambda record: {"fused": found})
    store.write({"volume": NAME})
    return store.path({"volume": NAME})


def weights(folder):
    torch.save({"model": {"layer.weight": torch.ones(3, 4)}, "iteration": 7}, folder / "model.pth")
    return folder / "model.pth"


NODULES = "seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2.3,-4.5,6.5,70.25,8.0\n"
HAND_LABELS = [{"lesion_idx": 3, "expanded_terms": ["liver"]}]
LABELS = {"term_list": ["liver", "lung"]}
for split in ("train", "val", "test"):
    LABELS |= {f"{split}_lesion_idxs": [0], f"{split}_relevant_labels": [[1]], f"{split}_uncertain_labels": [[]]}

# A file and its reader, which may look at the files beside it.
CASES = {
    "nii": (volume("ct.nii"), read_volume),
    "nii.gz": (volume("ct.nii.gz"), read_volume),
    "mha": (volume("ct.mha"), read_volume),
    "mhd": (volume("ct.mhd"), read_volume),
    "nrrd": (volume("ct.nrrd"), read_volume),
    "png": (png, lambda path: read_volume(path.parent, spacing=(1, 1, 5))),
    "dicom": (dicom, lambda path: read_volume(path.parent)),
    "dicom header": (dicom, lambda path: read_headers([path]).references(keep_ids=True)),
    "DL_info.csv": (marks, deeplesion.read_mark_table),
    "annotations.csv": (text("annotations.csv", NODULES), luna.read_nodules),
    "spacing.csv": (text("spacing.csv", "volume,x,y,z,axes\n28,0.5,0.5,1.6,LPS\n"), lits.read_corrections),
    "Revised": (released(write_revised, {NAME: [[2, 10, 20, 30, 40]]}), read_revised),
    "3D-Box": (released(write_boxes3d, {NAME: BOXES}), read_boxes3d),
    "LENS's set": (
        released(write_lens_set, {"val": {NAME: BOXES}, "test": {}}),
        partial(read_lens_set, part="val"),
    ),
    "pickle": (released(write_lens_set, {"val": {NAME: BOXES}}), read_pickle),
    "labels": (text("labels.json", json.dumps(LABELS)), read_labels),
    "hand labels": (
        text("hand.json", json.dumps([{"lesion_idx": 3, "expanded_terms": ["liver"]}])),
        read_hand_labels,
    ),
    "predictions.json": (text("predictions.json", json.dumps({NAME: [[1, 2, 3, 4, 5, 6, 0.5]]})), read_volumes),
    "ledger.parquet": (ledger("ledger.parquet"), read_ledger),
    "ledger.csv": (ledger("ledger.csv"), read_ledger),
    "shard": (shard, lambda path: ShardStore(path.parent, "model")._read({"volume": NAME})),
    "weights": (weights, lambda path: load_weights(str(path))),
}


@st.composite
def damages(draw, length: int):
    """What happens to the bytes of a file, mostly of its header: cut, bits flipped, overwritten, more inserted."""
    kind = draw(st.sampled_from(["cut", "flip", "overwrite", "insert"]))
    near = min(length - 1, 400)
    place = draw(st.integers(0, near) | st.integers(0, length - 1))
    if kind == "cut":
        return lambda data: data[:place]
    if kind == "flip":
        bits = draw(
            st.lists(st.tuples(st.integers(0, near) | st.integers(0, length - 1), st.integers(0, 7)), min_size=1)
        )

        def flip(data):
            data = bytearray(data)
            for where, bit in bits:
                data[where] ^= 1 << bit
            return bytes(data)

        return flip
    stretch = draw(
        st.binary(min_size=1, max_size=8)
        | st.sampled_from([b"\xff" * 8, b"\0" * 8, b"nan", b"-1", b'"', b"1e999"])
    )
    skipped = len(stretch) if kind == "overwrite" else 0
    return lambda data: data[:place] + stretch + data[place + skipped :]


@contextmanager
def no_hang():
    """Raises in the main thread after HANG seconds."""

    def raise_(*_):
        raise TimeoutError(f"more than {HANG} s")

    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, raise_)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs alarms to notice a hang")
@pytest.mark.parametrize("case", CASES)
def test_a_damaged_file_is_read_or_refused_in_a_line(case, tmp_path):
    make, read = CASES[case]
    path = Path(make(tmp_path))
    sound = path.read_bytes()
    read(path)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damages(len(sound)))
    def check(damage):
        path.write_bytes(damage(sound))
        with no_hang():
            try:
                read(path)
            except DataError as error:
                assert "\n" not in str(error) and str(tmp_path) in str(error)
                assert "Doe" not in str(error)

    check()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 500, b"hello, world\n" * 9, b"[" * 5000])
def test_something_else_altogether(case, content, tmp_path):
    make, read = CASES[case]
    path = Path(make(tmp_path))
    path.write_bytes(content)
    with no_hang():
        try:
            read(path)
        except DataError as error:
            assert "\n" not in str(error)
