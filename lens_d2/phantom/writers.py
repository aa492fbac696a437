"""Writers of scans in the file formats of the four datasets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from .space import ScanGrid

HU_OFFSET = 32768
# Run-length coding: for noisy CT as small as the default at its best, and several times as fast.
PNG_OPTIONS = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]


def write_png_slices(folder: Path, hu: np.ndarray, first: int) -> None:
    """Write 16-bit PNG slices ``<NNN>.png``, HU + 32768, as DeepLesion's ``Images_png``.

    Args:
        folder: of the series.
        hu: (Z, H, W) int16.
        first: number of the first slice.

    Raises:
        OSError: a slice cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, plane in enumerate(hu, start=first):
        picture = (plane.astype(np.int32) + HU_OFFSET).astype(np.uint16)
        if not cv2.imwrite(str(folder / f"{number:03d}.png"), picture, PNG_OPTIONS):
            raise OSError(f"cannot write {folder / f'{number:03d}.png'}")


def write_image(path: Path, array: np.ndarray, grid: ScanGrid) -> None:
    """Write a volume in the format of the file's ending (.mhd with its .raw, .nii, .nii.gz)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(v) for v in grid.spacing])
    image.SetOrigin([float(v) for v in grid.origin])
    image.SetDirection(np.diag(grid.direction).astype(float).ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=path.name.endswith(".gz"))


def write_dicom_series(folder: Path, hu: np.ndarray, grid: ScanGrid, patient: str, uid: int) -> None:
    """Write a CT series, a file a slice, explicit little endian, stored as HU + 1024.

    Args:
        folder: of the series.
        hu: (Z, H, W) int16.
        grid: its voxels.
        patient: name and id.
        uid: number from which the UIDs are made; the next two are taken as well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = f"2.25.{uid}"
    for number, plane in enumerate(hu):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{number + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = "2.25.1"
        position = grid.to_scan([0, 0, number])
        file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        file.StudyInstanceUID, file.SeriesInstanceUID = f"2.25.{uid + 1}", series
        file.FrameOfReferenceUID = f"2.25.{uid + 2}"
        file.Modality, file.PatientID, file.PatientName = "CT", patient, patient
        file.StudyDate, file.SeriesNumber, file.InstanceNumber = "20200101", 1, number + 1
        file.ImagePositionPatient = [f"{v:.6f}" for v in position]
        file.ImageOrientationPatient = [grid.direction[0], 0, 0, 0, grid.direction[1], 0]
        file.PixelSpacing = [f"{grid.spacing[1]:.6f}", f"{grid.spacing[0]:.6f}"]
        file.SliceThickness = f"{grid.spacing[2]:.6f}"
        file.Rows, file.Columns = plane.shape
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
        file.RescaleIntercept, file.RescaleSlope, file.RescaleType = "-1024", "1", "HU"
        file.PixelData = (plane.astype(np.int32).clip(-1024) + 1024).astype("<u2").tobytes()
        file.save_as(folder / f"{number + 1:06d}.dcm", enforce_file_format=True)
