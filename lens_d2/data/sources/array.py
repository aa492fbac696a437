"""Volumes that are already in memory: arrays, and images of SimpleITK."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...io.errors import DataError
from .source import Source, affine_of, odd_lengths

NAME = Path("array")  # stands for the path in messages
ORIGIN = (0.0, 0.0, 0.0)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


class ArraySource(Source):
    """A volume in memory."""

    def __init__(
        self,
        voxels: np.ndarray,
        spacing: Sequence[float] | None,
        origin: Sequence[float] | None = None,
        direction: Sequence[float] | np.ndarray | None = None,
    ):
        """
        Args:
            voxels: (k, j, i) HU of any real type, slices first as SimpleITK's ``GetArrayFromImage`` gives them.
            spacing: (3,) mm along i, j, k.
            origin: (3,) LPS mm of the first voxel's centre; None: 0, 0, 0.
            direction: (9,) or (3, 3) direction cosines, the axes in columns, as in SimpleITK; None: i, j, k run to
                the patient's left, back and head.

        Raises:
            DataError: the array has another number of axes, is empty or not of real numbers, or the place is
                incomplete, not finite, its spacing not positive or its axes no unit vectors.
        """
        super().__init__(NAME, {"file_name": str(NAME)})
        if isinstance(voxels, np.ma.MaskedArray):
            raise DataError(NAME, "a masked array: fill what is masked, such as with -1024 (air)")
        self.voxels = np.asarray(voxels)
        if self.voxels.ndim != 3 or not self.voxels.size:
            raise DataError(NAME, f"shape {self.voxels.shape}: a volume has three axes, slices first")
        if self.voxels.dtype.kind not in "iufb":
            raise DataError(NAME, f"voxels of type {self.voxels.dtype}: HU are real numbers")
        if spacing is None:
            raise DataError(NAME, "an array needs spacing=(x, y, z) in mm")
        origin, direction = ORIGIN if origin is None else origin, IDENTITY if direction is None else direction
        fault = DataError(NAME, "spacing and origin have three finite numbers each, direction nine")
        try:
            place = [np.asarray(each, dtype=np.float64).reshape(-1) for each in (spacing, direction, origin)]
        except (TypeError, ValueError):
            raise fault from None
        if [len(each) for each in place] != [3, 9, 3] or not np.isfinite(np.concatenate(place)).all():
            raise fault
        if lengths := odd_lengths(place[1].reshape(3, 3)):
            raise DataError(NAME, f"axes of the lengths {lengths} in direction, where unit vectors belong")
        self.affine = affine_of(NAME, *place)
        self.check_axes(self.affine[:3, :3])

    @classmethod
    def from_image(cls, image) -> ArraySource:
        """Make a volume of a 3D ``SimpleITK.Image``.

        Raises:
            DataError: the image is not a scalar 3D one.
        """
        import SimpleITK as sitk

        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            raise DataError(NAME, "a scalar image of three dimensions belongs here")
        voxels = sitk.GetArrayViewFromImage(image)
        return cls(voxels, image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        """Size (i, j, k) and the (4, 4) affine from voxel centre index to LPS mm."""
        k, j, i = self.voxels.shape
        return (i, j, k), self.affine

    def array(self) -> np.ndarray:
        """(k, j, i) int16 voxels in HU, rounded and saturated; a copy.

        Raises:
            DataError: some voxels are NaN or infinite.
        """
        if self.voxels.dtype == np.int16:
            return self.voxels.copy()
        limits = np.iinfo(np.int16)
        voxels = np.empty(self.voxels.shape, np.int16)
        for z, picture in enumerate(self.voxels):
            if picture.dtype.kind == "f" and not np.isfinite(picture).all():
                raise DataError(NAME, f"{(~np.isfinite(self.voxels)).sum()} voxels are NaN or infinite")
            voxels[z] = np.rint(np.clip(picture, limits.min, limits.max))
        return voxels
