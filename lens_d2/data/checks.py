"""Checks of what was read, whatever the format: that it is CT in Hounsfield units, of credible size and place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from os import PathLike

import numpy as np

from ..io.errors import DataError
from ..structures.geometry import VolumeGeometry, displacement

# Modalities of DICOM (and PET, as people write it) whose voxels are not HU.
OTHER_MODALITIES = ("MR", "PT", "PET", "NM", "US", "CR", "DX", "MG", "XA", "RF", "OP", "OCT", "SM", "SEG")

SAMPLE = 1_000_000  # voxels that are checked, spread evenly over the volume
AIR_RANGE = (-1100, -700)  # HU of air and most of the lung, noise included
TISSUE = (-200, 250)  # HU of fat and soft tissue, with contrast agent
DENSE = (900, 1200)  # HU of cortical bone; water if 1000 or 1024 were added to HU
LOWEST, HIGHEST = -1200, 4000  # HU beyond which only padding and metal lie
SOME = 0.001  # share of the voxels that is more than noise
LITTLE = 0.003  # share of fat and soft tissue that a limb has in the widest field of view
STRAY = 0.01  # share of the voxels beyond LOWEST or HIGHEST that metal does not explain
MUCH = 0.1  # share of the voxels that bone never reaches
PILE = 0.05  # share of the voxels with one value that noise never leaves in tissue
HALF = 0.5  # share of fat and soft tissue in what is cut out of the body
NARROW = 50  # HU from the lowest to the highest value: less than the range of noise and fat
WHITE = 255  # the brightest value of a picture of 8 bits
FEW = 32  # different values that a label map may have; CT has hundreds

# mm between pixels: a tenth is micro-CT, 2 is the widest field of view, 3 and 6 are resampled ones
PIXEL = (0.1, 8.0)
INTERVAL = (0.1, 25.0)  # mm between slices
OBLONG = 10.0  # ratio of a pixel's sides; scanners make squares, reformatting across slices 5 mm apart gives 1:7
LARGEST = 5000.0  # mm along any axis; a larger volume has too many pixels once it is resampled
SMALLEST = 0.01  # mm of a voxel's edge; with smaller ones, a picture of a lesion has 10,000 pixels a side
LUNG = 150.0  # mm across, the widest volume that may be cut out of a lung or the air around a body
EXTENT = (1000.0, 1000.0, 2500.0)  # mm along x, y (a gantry is 0.9 m wide) and z (a person's height and more)

OBLIQUE = 10.0  # degrees; slices further off the patient's axes are not taken for axial ones

# Distance between a mask's voxels and those of its CT that is tolerated, as a part of the smallest voxel edge.
MASK_TOLERANCE = 0.5
MASK_SPACING_TOLERANCE = 0.01  # part of the spacing by which the two may differ


def refuse_other_modalities(path: str | PathLike, modality: str) -> None:
    """Refuse a file whose header says that it is not CT.

    Raises:
        DataError: the modality is one of :data:`OTHER_MODALITIES`.
    """
    if modality.strip().upper() in OTHER_MODALITIES:
        raise DataError(path, f"its header says that it is {modality.strip().upper()}; only CT is read")


def refuse_impossible_sizes(path: str | PathLike, geometry: VolumeGeometry) -> None:
    """Refuse a volume so large, or voxels so small, that resampling or picturing them in mm would not end.

    Spacing that is merely unlikely is a warning, see :func:`check_spacing`.

    Raises:
        DataError: an extent is above :data:`LARGEST` or a spacing below :data:`SMALLEST`.
    """
    extent = np.array(geometry.size) * geometry.spacing
    if extent.max() > LARGEST or min(geometry.spacing) < SMALLEST:
        metres = " x ".join(f"{side / 1000:.3g}" for side in extent)
        raise DataError(
            path,
            f"voxels of {_product(geometry.spacing)} mm, a volume of {metres} m: at most {LARGEST / 1000:g} m and "
            f"voxels of at least {SMALLEST:g} mm, can be used: put the spacing in its header right",
        )


def check_volume(array: np.ndarray, geometry: VolumeGeometry) -> list[str]:
    """Check voxels and spacing for signs that this is not CT in HU and mm, or too little of it.

    Args:
        array: (z, y, x) int16.
        geometry: its place.

    Returns:
        a line for each sign.
    """
    values = check_values(array) or check_tissue(array, geometry)
    return [*values, *check_spacing(geometry), *check_depth(geometry), *check_orientation(geometry)]


def is_oblique(geometry: VolumeGeometry) -> bool:
    """Whether an axis of the scan is more than :data:`OBLIQUE` off the patient's."""
    return geometry.obliquity > OBLIQUE


def check_orientation(geometry: VolumeGeometry) -> list[str]:
    """Check whether the scan's axes are the patient's: a line if they are :func:`is_oblique`."""
    if not is_oblique(geometry):
        return []
    angle = f"{geometry.obliquity:.0f}°"
    return [f"oblique: the scan's axes lie up to {angle} off the patient's; pictures and sizes follow the scan's"]


@dataclass(frozen=True)
class Values:
    """A sample of a volume's values.

    Attributes:
        sample: (n,) sorted.
    """

    sample: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray) -> Values:
        """Those of (z, y, x) int16 voxels."""
        flat = array.reshape(-1)
        # An odd step reaches all columns and rows of a slice.
        return cls(np.sort(flat[:: len(flat) // SAMPLE | 1], kind="stable"))  # a radix sort, six times as fast

    @property
    def low(self) -> int:
        """The lowest value."""
        return int(self.sample[0])

    @property
    def high(self) -> int:
        """The highest value."""
        return int(self.sample[-1])

    def part(self, low: float, high: float) -> float:
        """The share of voxels from ``low`` to ``high``, both included."""
        first, last = np.searchsorted(self.sample, low, "left"), np.searchsorted(self.sample, high, "right")
        return float(last - first) / len(self.sample)

    @cached_property
    def counts(self) -> np.ndarray:
        """(n,) how often each value occurs, from the lowest value to the highest."""
        return np.unique(self.sample, return_counts=True)[1]

    @property
    def is_within_body(self) -> bool:
        """Whether this may be cut out of the body, without air: noisy values, mostly of fat and soft tissue."""
        return self.part(*TISSUE) > HALF and self.counts.max() < PILE * len(self.sample)


def check_values(array: np.ndarray) -> list[str]:
    """Check whether (z, y, x) int16 voxels look like HU: the first finding of VALUE_CHECKS, or nothing."""
    values = Values.of(array)
    fault = next(filter(None, (check(values) for check in VALUE_CHECKS)), None)
    return [] if fault is None else [f"{fault}: not Hounsfield units, detections cannot be trusted"]


def _is_constant(values: Values) -> str | None:
    return f"every voxel is {values.low}" if values.low == values.high else None


def _is_label_map(values: Values) -> str | None:
    if values.low < 0 or values.high >= WHITE or len(values.counts) > FEW:
        return None
    return (
        f"{len(values.counts)} different values, {values.low} to {values.high}, as of a mask or normalised image"
    )


def _is_normalised(values: Values) -> str | None:
    narrow = values.high - values.low < NARROW and values.part(*AIR_RANGE) < HALF
    return f"values {values.low} to {values.high}, as of a normalised image" if narrow else None


def _is_window(values: Values) -> str | None:
    if values.low < 0 or values.high > WHITE or values.is_within_body:
        return None
    return f"values {values.low} to {values.high}, as of a window"


def _is_out_of_range(values: Values) -> str | None:
    high, low = values.part(HIGHEST, np.inf), values.part(-np.inf, LOWEST)
    padding = values.part(values.low, values.low)  # all pixels outside the field of view have one value
    if high > STRAY:
        return f"{high:.0%} of the voxels are {HIGHEST} or more (up to {values.high})"
    if low - padding > STRAY:
        return f"{low:.0%} of the voxels are {LOWEST} or less (down to {values.low})"
    return None


def _is_shifted(values: Values) -> str | None:
    dense = values.part(*DENSE)
    if dense <= MUCH:
        return None
    return f"{dense:.0%} of the voxels are {DENSE[0]} to {DENSE[1]}, as if 1024 had been added, or inverted"


def _is_clipped(values: Values) -> str | None:
    pile = values.part(values.low, values.low)
    if values.low < AIR_RANGE[1] or pile <= PILE or values.part(*AIR_RANGE) > SOME:
        return None
    return f"{pile:.0%} of the voxels have the lowest value, {values.low}, as of a window; there is no air"


def _has_no_air(values: Values) -> str | None:
    if values.part(*AIR_RANGE) > SOME or (values.low < 0 and values.is_within_body):
        return None
    return f"values {values.low} to {values.high} without air (about -1000)"


VALUE_CHECKS: tuple[Callable[[Values], str | None], ...] = (
    _is_constant,
    _is_label_map,
    _is_normalised,
    _is_window,
    _is_out_of_range,
    _is_shifted,
    _is_clipped,
    _has_no_air,
)


def check_tissue(array: np.ndarray, geometry: VolumeGeometry) -> list[str]:
    """Check that (z, y, x) int16 voxels hold tissue, unless they may be cut out of a lung; a line if not."""
    if max(size * side for size, side in zip(geometry.size[:2], geometry.spacing[:2], strict=True)) <= LUNG:
        return []
    tissue = Values.of(array).part(*TISSUE)
    if tissue >= LITTLE:
        return []
    told = f"{tissue:.1%} of the voxels are fat or soft tissue ({TISSUE[0]} to {TISSUE[1]})"
    return [f"{told}: nothing but air, or not Hounsfield units, detections cannot be trusted"]


def check_spacing(geometry: VolumeGeometry) -> list[str]:
    """Check whether spacing and extent can be a CT's in mm: a line if not."""
    (x, y, z), size = geometry.spacing, geometry.size
    extent = np.array(size) * geometry.spacing
    if not (PIXEL[0] <= min(x, y) and max(x, y) <= PIXEL[1] and INTERVAL[0] <= z <= INTERVAL[1]):
        fault = f"voxels of {_product(geometry.spacing)} mm"
    elif max(x, y) > OBLONG * min(x, y):
        fault = f"pixels of {x:.3g} x {y:.3g} mm"
    elif (extent > EXTENT).any():
        fault = f"a volume of {extent[0]:.0f} x {extent[1]:.0f} x {extent[2]:.0f} mm"
    else:
        return []
    return [
        f"{fault} cannot be a CT's (another unit, or a damaged header?): sizes and detections cannot be trusted"
    ]


def check_depth(geometry: VolumeGeometry) -> list[str]:
    """Check whether slices have neighbours: a line if not."""
    if geometry.size[2] > 1:
        return []
    return ["a single slice: lesions are told from vessels by the slices above and below, which are missing"]


def check_mask(mask: VolumeGeometry, like: VolumeGeometry) -> list[str]:
    """Check whether a mask's header places its voxels on those of its CT: a line if not.

    Args:
        mask: geometry of the mask; its axes may run the other way.
        like: geometry of the CT, of the same size.
    """
    affine, size = np.array(mask.affine), np.array(like.size)
    other_way = [axis for axis in range(3) if mask.flips[axis] != like.flips[axis]]
    turned = np.eye(4)
    for axis in other_way:
        turned[axis, axis], turned[axis, 3] = -1, size[axis] - 1
    affine = affine @ turned
    apart = displacement(affine, np.array(like.affine), like.size)
    tolerance = MASK_TOLERANCE * min(like.spacing)
    if apart <= tolerance:
        return []
    details = []
    if not np.allclose(mask.spacing, like.spacing, rtol=MASK_SPACING_TOLERANCE):
        details.append("its spacing is {} mm, the CT's {} mm".format(*map(_product, (mask.spacing, like.spacing))))
    if np.linalg.norm(affine[:3, 3] - np.array(like.affine)[:3, 3]) > tolerance:
        details.append("its origin is another")
    if other_way:
        axes = " and ".join("xyz"[axis] for axis in other_way)
        details.append(f"it runs the other way along {axes} and was turned")
    told = ", ".join(details) or "it is oblique"
    return [
        f"by its header the mask lies up to {apart:.3g} mm off its CT ({told}): laid on the CT voxel by voxel, "
        "its lesions may be misplaced"
    ]


def _product(spacing: tuple[float, float, float]) -> str:
    return " x ".join(f"{step:.3g}" for step in spacing)
