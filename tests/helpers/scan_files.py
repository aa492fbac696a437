"""CT scans written for tests, as files of several formats on any grid."""

from pathlib import Path

import cv2
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid


def make_affine(spacing, direction=None, origin=(0.0, 0.0, 0.0)) -> np.ndarray:
    """(4, 4) voxel centre index i, j, k -> LPS mm; the axes are the columns of ``direction``."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(np.eye(3) if direction is None else direction, float) * spacing
    affine[:3, 3] = origin
    return affine


def write_volume(path, array, affine) -> Path:
    """A file that SimpleITK writes, with (k, j, i) voxels."""
    image = sitk.GetImageFromArray(array)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    sitk.WriteImage(image, str(path))
    return Path(path)


def write_series(folder, array, affine, series_uid=None, change=None, **elements) -> Path:
    """A DICOM series, one file per slice of the (k, j, i) voxels, in an order of files that is not theirs.

    ``change(k, dataset)`` may edit the dataset of slice k; if it returns False, the slice is left out.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / spacing
    series_uid, study_uid = series_uid or generate_uid(), generate_uid()
    places = np.random.default_rng(1).permutation(len(array))
    for number, (place, picture) in enumerate(zip(places, array, strict=True)):
        data = make_slice(picture, series_uid, study_uid)
        data.InstanceNumber = number + 1
        data.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]  # between rows, between columns
        data.ImageOrientationPatient = [_decimal(x) for x in cosines[:, :2].T.ravel()]
        data.ImagePositionPatient = [_decimal(x) for x in affine[:3, 3] + number * affine[:3, 2]]
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        for keyword, value in elements.items():
            setattr(data, keyword, value)
        if change is None or change(number, data) is not False:
            data.save_as(folder / f"{series_uid[-12:]}_{place:03d}.dcm", enforce_file_format=True)
    return folder


def write_enhanced(path, array, affine, order=None, change=None, **elements) -> Path:
    """A DICOM file of enhanced CT with the (k, j, i) voxels as frames, slice ``order[n]`` as frame n.

    ``change(k, item)`` may edit the functional groups of slice k.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / spacing
    order = range(len(array)) if order is None else order
    data = make_slice(array[list(order)], generate_uid(), generate_uid(), EnhancedCTImageStorage)
    data.NumberOfFrames = len(order)
    shared = pydicom.Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[spacing[1], spacing[0]], SliceThickness=spacing[2])]
    shared.PixelValueTransformationSequence = [_item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")]
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], []
    for k in order:
        frame = pydicom.Dataset()
        position = [_decimal(x) for x in affine[:3, 3] + k * affine[:3, 2]]
        frame.PlanePositionSequence = [_item(ImagePositionPatient=position)]
        orientation = [_decimal(x) for x in cosines[:, :2].T.ravel()]
        frame.PlaneOrientationSequence = [_item(ImageOrientationPatient=orientation)]
        frame.FrameContentSequence = [_item(StackID="1")]
        if change is not None:
            change(k, frame)
        data.PerFrameFunctionalGroupsSequence.append(frame)
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.save_as(path, enforce_file_format=True)
    return Path(path)


def make_slice(values, series_uid, study_uid, sop_class=CTImageStorage) -> pydicom.Dataset:
    """A CT image of (rows, columns) or (frames, rows, columns) HU, stored without sign, that has no place yet."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = study_uid, series_uid, "CT"
    data.FrameOfReferenceUID = "2.25.1"
    data.Rows, data.Columns = values.shape[-2:]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.PixelData = (values.astype(np.int32) + 1024).clip(0).astype(np.uint16).tobytes()
    return data


def _item(**elements) -> pydicom.Dataset:
    item = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def write_pngs(folder, array, first=1) -> Path:
    """DeepLesion's 16-bit pictures of the (z, y, x) voxels, HU + 32768."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(array, first):
        cv2.imwrite(str(folder / f"{number:03d}.png"), (picture.astype(np.int32) + 32768).astype(np.uint16))
    return folder


def _decimal(value: float) -> str:
    """A DICOM decimal string: at most 16 characters."""
    return f"{value:.10g}"[:16]
