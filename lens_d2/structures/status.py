"""What the boxes of a training sample stand for. The mapper writes these values, the losses read them."""

from enum import IntEnum


class BoxStatus(IntEnum):
    """Field ``gt_status`` of a sample's ``Instances``."""

    LESION = 0  # an annotation, given or mined: to be found
    UNCERTAIN = 1  # to be left out of every loss (LENS, Section V-C)
    HARD_NEGATIVE = 2  # known not to be a lesion


# The status of a record's lesion (see lens_d2.structures.records), and what training makes of it.
STATUS_OF_RECORD = {
    "annotation": BoxStatus.LESION,
    "mined": BoxStatus.LESION,
    "accepted": BoxStatus.LESION,
    "uncertain": BoxStatus.UNCERTAIN,
    "unsure": BoxStatus.UNCERTAIN,
    "hard_negative": BoxStatus.HARD_NEGATIVE,
}
