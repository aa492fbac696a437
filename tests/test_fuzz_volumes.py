"""A damaged volume is read rightly, warned of or refused in a line, and never ends the process.

Some hundred mutations of every format, seeded, are read by processes of their own (fuzz_worker.py): a process that
dies or hangs is a failure, and the next one goes on. Of what is read without a word:

- The place must be that of the sound file: no corner of the volume off by more than half a voxel.
- The voxels must be those of the sound file. Where a format has no checksum over them, a changed byte of a voxel
  makes another value, which nobody can know: as many voxels as bytes were changed may differ.
- A byte of the header may turn one number into another that makes as much sense (a spacing of 0.8 mm into 0.9 mm,
  an origin, a slope or intercept), where the format says it once: the file is then a sound file of another volume.
  No reader can know. Those are counted as UNKNOWABLE: few, and none where the header is under a checksum. NIfTI
  says all but slope and intercept twice.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from helpers.scan_files import make_affine, write_pngs, write_series, write_volume

MUTATIONS = 200  # of each format
RNG = np.random.default_rng(0)
SHAPE = (4, 8, 9)
ARRAY = (np.where(RNG.random(SHAPE) < 0.5, -1000, 40) + RNG.normal(0, 20, SHAPE)).clip(-1024).astype(np.int16)
AFFINE = make_affine((0.8, 0.9, 3.0), origin=(-110, -120, -430))
CORNERS = np.array(np.meshgrid(*([0, n - 1] for n in SHAPE[::-1]))).reshape(3, -1)
UNKNOWABLE = 0.05  # part of the mutations of a format without redundancy that may be read as another sound file


def volume(name, compressed=False):
    def write(folder):
        path = write_volume(folder / name, ARRAY, AFFINE)
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path), compressed)
        return path

    return write


def nifti2(folder):
    image = nib.Nifti2Image(ARRAY.T, np.diag([-1, -1, 1, 1]) @ AFFINE)
    image.set_qform(image.affine, 1)
    nib.save(image, folder / "ct.nii")
    return folder / "ct.nii"


def dicom(folder):
    return sorted(write_series(folder / "ct", ARRAY, AFFINE, "1.2.3").iterdir())[1]


def png(folder):
    return write_pngs(folder / "ct", ARRAY) / "002.png"


# By name: what writes a sound volume and gives the file to damage; what else read_volume is told; whether the file
# is a slice in a folder; whether its voxels, and its header, are under a checksum or not in the file.
FORMATS = {
    "nii": dict(write=volume("ct.nii")),
    "nifti2": dict(write=nifti2),
    "nii.gz": dict(write=volume("ct.nii.gz", True), voxels=True, header=True),
    "mha": dict(write=volume("ct.mha")),
    "mha compressed": dict(write=volume("ct.mha", True), voxels=True),
    "mhd": dict(write=volume("ct.mhd"), voxels=True),
    "nrrd": dict(write=volume("ct.nrrd")),
    "nrrd compressed": dict(write=volume("ct.nrrd", True), voxels=True),
    "nhdr": dict(write=volume("ct.nhdr"), voxels=True),
    "png": dict(write=png, folder=True, options={"spacing": [0.8, 0.9, 3.0]}, voxels=True, header=True),
    "dicom": dict(write=dicom, folder=True),
}


class Worker:
    """A process that reads; started anew when it has died."""

    def __init__(self):
        self.process = None

    def read(self, **record) -> dict:
        """The outcome, ``{"died": status}`` where there is none."""
        if self.process is None:
            self._start()
        self.process.stdin.write(json.dumps(record) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if answer:
            return json.loads(answer)
        status = self.process.wait()
        self.close()
        return {"died": status}

    def _start(self):
        command = [sys.executable, "-W", "ignore", str(Path(__file__).parent / "helpers" / "fuzz_worker.py")]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.close()


def damage(data: bytes, rng: np.random.Generator) -> tuple[bytes, int]:
    """The data with one fault, half of the times near the beginning, and how many bytes it touches."""
    place = int(rng.integers(min(len(data), 400) if rng.random() < 0.5 else len(data)))
    kind = rng.choice(
        ["bit", "byte", "stretch", "zeros", "cut", "insert", "remove", "append"], p=[0.3, 0.2] + [1 / 12] * 6
    )
    length = int(rng.integers(1, 64))
    noise = rng.bytes(length)
    match kind:
        case "bit":
            return data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1 :], 1
        case "byte":
            return data[:place] + noise[:1] + data[place + 1 :], 1
        case "stretch":
            return data[:place] + noise + data[place + length :], length
        case "zeros":
            return data[:place] + bytes(length) + data[place + length :], length
        case "cut":
            return data[:place], 0
        case "insert":
            return data[:place] + noise + data[place:], 0
        case "remove":
            return data[:place] + data[place + length :], 0
        case _:
            return data + noise, 0


def verdict(outcome: dict, sound: dict, touched: int, path: Path) -> str:
    """One of: refused, warned, right, voxels (of touched bytes), unknowable; or a failure in other words."""
    if "died" in outcome:
        return f"the process ended with {outcome['died']}"
    if "refused" in outcome:
        text = outcome["refused"]
        return "refused" if "\n" not in text and str(path.parent) in text else f"an error of another form: {text}"
    if set(outcome["warnings"]) - set(sound["warnings"]):
        return "warned"
    array = np.array(outcome["array"])
    if array.shape != SHAPE:
        return "unknowable"
    change = np.array(outcome["affine"]) - np.array(sound["affine"])
    apart = np.linalg.norm(change[:3, :3] @ CORNERS + change[:3, 3:], axis=0).max()
    differ = int((array != ARRAY).sum())
    if apart > 0.4 or differ > touched:
        return "unknowable"
    return "voxels" if differ else "right"


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_volume_is_read_rightly_warned_of_or_refused(name, worker, tmp_path):
    options = FORMATS[name]
    path = options["write"](tmp_path)
    record = {"file_name": str(path.parent if options.get("folder") else path), **options.get("options", {})}
    data, rng = path.read_bytes(), np.random.default_rng(sorted(FORMATS).index(name))
    sound = worker.read(**record)
    assert verdict(sound, sound, 0, path) == "right" and not sound["warnings"]
    seen, failures = Counter(), []
    for number in range(MUTATIONS):
        damaged, touched = damage(data, rng)
        path.write_bytes(damaged)
        outcome = worker.read(**record)
        found = verdict(outcome, sound, touched, path)
        seen[found] += 1
        allowed = {"refused", "warned", "right"}
        allowed |= set() if options.get("voxels") else {"voxels"}
        allowed |= set() if options.get("header") else {"unknowable"}
        if found not in allowed:
            where = [i for i in range(min(len(data), len(damaged))) if data[i] != damaged[i]]
            failures.append((number, found, where[:4], len(data), len(damaged), outcome.get("affine")))
    print(name, dict(seen))
    assert not failures
    assert seen["unknowable"] <= UNKNOWABLE * MUTATIONS
    path.write_bytes(data)
    assert worker.read(**record) == sound
