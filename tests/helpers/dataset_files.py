"""Tiny datasets in the real formats, for the tests of their readers."""

import csv

import cv2
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from lens_d2.data.datasets.catalog import Faults

MARK = {
    "File_name": "000001_02_03_012.png",
    "Patient_index": "1",
    "Study_index": "2",
    "Series_ID": "3",
    "Key_slice_index": "12",
    "Measurement_coordinates": "21, 31, 41, 31, 31, 26, 31, 36",
    "Bounding_boxes": "16, 21, 46, 41",
    "Lesion_diameters_Pixel_": "20, 10",
    "Normalized_lesion_location": "0.3, 0.4, 0.5",
    "Coarse_lesion_type": "5",
    "Possibly_noisy": "0",
    "Slice_range": "10, 16",
    "Spacing_mm_px_": "0.8, 0.8, 5",
    "Image_size": "64, 64",
    "DICOM_windows": "-1350, 150",
    "Patient_gender": "F",
    "Patient_age": "50",
    "Train_Val_Test": "1",
}


def mark(series="000001_02_03", key_slice=12, slices=(10, 16), **columns):
    """A row of DL_info.csv."""
    own = {
        "File_name": f"{series}_{key_slice:03d}.png",
        "Key_slice_index": str(key_slice),
        "Slice_range": f"{slices[0]}, {slices[1]}",
    }
    return {**MARK, **own, **columns}


def write_table(path, rows, columns=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_marks(root, rows, columns=None):
    return write_table(root / "DeepLesion" / "DL_info.csv", rows, columns)


def write_slices(root, series, numbers, size=64):
    folder = root / "DeepLesion" / "Images_png" / series
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture = np.full((size, size), 32768, dtype=np.uint16)
        cv2.imwrite(str(folder / f"{number:03d}.png"), picture)
    return folder


def write_image(path, array, spacing=(1.0, 1.0, 1.0), direction=(1, 1, 1), origin=(0.0, 0.0, 0.0)):
    """A (z, y, x) array as .mhd or .nii; ``direction`` is the diagonal, or all nine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    matrix = np.diag(direction) if len(direction) == 3 else np.reshape(direction, (3, 3))
    image.SetDirection(matrix.astype(float).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def write_dicom(folder, array, spacing=(1.0, 1.0, 2.0), series="1.2.3"):
    """A (z, y, x) array as a series whose slices run to the head."""
    folder.mkdir(parents=True, exist_ok=True)
    for z, picture in enumerate(array):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = "1.2", series, "CT"
        data.Rows, data.Columns = picture.shape
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.PixelSpacing = [spacing[1], spacing[0]]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [0.0, 0.0, z * spacing[2]]
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = picture.astype(np.int16).tobytes()
        data.save_as(folder / f"{z:04d}.dcm", enforce_file_format=True)
    return folder


def read_both(read_split, root, faults=None) -> dict[str, dict]:
    """{sub-volume: record} of both parts of a dataset; faults are collected if that is asked for."""
    faults = Faults() if faults is None else faults
    return {r["volume"]: r for split in ("train", "val") for r in read_split(split, root, faults)}
